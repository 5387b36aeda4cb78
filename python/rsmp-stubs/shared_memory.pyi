from multiprocessing import shared_memory
from multiprocessing.shared_memory import ShareableList as ShareableList

class SharedMemory(shared_memory.SharedMemory):
    def __init__(self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True) -> None: ...
