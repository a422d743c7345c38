#pragma once
#include "CLinuxDevices.h"
#include "CLinuxLoop.h"
