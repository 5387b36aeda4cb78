from multiprocessing.resource_sharer import *
from multiprocessing.resource_sharer import DupFd as DupFd
