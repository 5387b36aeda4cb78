from multiprocessing.synchronize import *
from multiprocessing.synchronize import Barrier as Barrier
from multiprocessing.synchronize import SemLock as SemLock
