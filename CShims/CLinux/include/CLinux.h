#pragma once
#include "CLinuxDevices.h"
#include "CLinuxEvents.h"
#include "CLinuxGrow.h"
#include "CLinuxProcesses.h"
#include "CLinuxThreads.h"
