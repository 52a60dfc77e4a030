"""What outlives the process: the SQLite state file, the ledger in it, files that are whole or not there.

Law: saving never raises into whoever changed something; what the disk does not take is told and tried again.
The audit file alone says no to its caller.
Way in: ``ledger`` (leases, keys, certificates, people), ``audit_file``, ``atomic_file`` (files).
"""
