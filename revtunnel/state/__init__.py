"""What outlives the process: the SQLite state file, the ledger in it, files that are whole or not there.

Law: saving never raises into whoever changed something; what the disk does not take is told and tried again.
Way in: ``ledger`` (leases, keys, certificates), ``atomic_file`` (files).
"""
