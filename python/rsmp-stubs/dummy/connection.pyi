from multiprocessing.dummy.connection import *
from multiprocessing.dummy.connection import Connection as Connection
from multiprocessing.dummy.connection import families as families
