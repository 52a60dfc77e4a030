"""Who is who: the small authority, tokens, enrolment, renewal, revocation, the certificates in use; people,
and what they may.

Law: a private key leaves no file of its owner; what was revoked stays revoked over a restart.
Way in: ``authority`` (makes certificates), ``issuer`` (at the server), ``certificate_renewal`` (at the
agent), ``tls_settings_checks`` (what settings of TLS mean together), ``people_operator`` and ``grants`` (may
he do that?).
"""
