"""A manager serves a queue and a class of its own over TCP; clients connect with the key."""

from multiprocessing import AuthenticationError, Process
from multiprocessing.managers import BaseManager

KEY = b"a key that both sides know"


class Account:
    """Lives in the server; clients hold proxies of it."""

    def __init__(self):
        self.balance = 0

    def deposit(self, amount):
        self.balance += amount
        return self.balance

    def get_balance(self):
        return self.balance


class Bank(BaseManager):
    """Serves one account."""


class Customer(BaseManager):
    """Knows what a bank serves, not how."""


account = Account()


def get_account():
    return account


Bank.register("account", callable=get_account)
Customer.register("account")


def save(address, times):
    customer = Customer(address=address, authkey=KEY)
    customer.connect()
    for _ in range(times):
        customer.account().deposit(1)


if __name__ == "__main__":
    bank = Bank(address=("127.0.0.1", 0), authkey=KEY)
    bank.start()
    customers = [Process(target=save, args=(bank.address, 10)) for _ in range(2)]
    for customer in customers:
        customer.start()
    for customer in customers:
        customer.join()
    # Two deposits at once may overlap in the server's threads, as they may in any program with threads.
    print("exit codes:", [customer.exitcode for customer in customers])
    print("the balance is at least 10:", bank.account().get_balance() >= 10)
    stranger = Customer(address=bank.address, authkey=b"another key")
    try:
        stranger.connect()
    except AuthenticationError as error:
        print("a stranger is refused:", error)
    bank.shutdown()
