"""One measurement, in a process of its own: ``measure.py LIBRARY SCENARIO CASE BUDGET`` prints it as JSON.

Children under spawn run this file again, so it imports nothing before it knows that it is the program.
"""

if __name__ == "__main__":
    import json
    import sys

    import harness

    library, scenario, case, budget = sys.argv[1:]
    print(json.dumps(harness.measure(library, scenario, case, float(budget))))
