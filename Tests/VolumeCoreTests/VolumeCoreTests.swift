// VolumeCoreTests
