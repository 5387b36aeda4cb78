from multiprocessing.spawn import *
from multiprocessing.spawn import is_forking as is_forking
from multiprocessing.spawn import old_main_modules as old_main_modules
from multiprocessing.spawn import prepare as prepare
from multiprocessing.spawn import spawn_main as spawn_main
