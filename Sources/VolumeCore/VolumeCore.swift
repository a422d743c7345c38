// VolumeCore
