"""What the tests, the benchmarks and the endurance runs share: processes, ports, PostgreSQL servers, a fault proxy, a load client.

It imports none of the three.
"""
