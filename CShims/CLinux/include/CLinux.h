#pragma once
#include "CLinuxDevices.h"
#include "CLinuxGrow.h"
#include "CLinuxLoop.h"
