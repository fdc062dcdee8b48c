"""scripts/bench: measures the real server, with all its checks on, beside others, in one run.

A run is one process that starts the servers on one core and the load on another, one cell of the table
after the other. `servers` starts what is measured, `load` is the other side, `cells` say what is measured,
`report` and `chart` show it. Nothing of this is part of the package that is installed.
"""
