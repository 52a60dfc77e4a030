"""What the HTTP API has beside the operator's table: what each person has for himself, and charts.

Source: process/admin/operation_form.py has the form.
"""

from revtunnel.process.admin.operation_form import table_of
from revtunnel.process.web.web_operations import WEB_OPERATIONS
from revtunnel.systems.sessions.person_operations import PERSON_OPERATIONS
from revtunnel.trust.account_operations import ACCOUNT_OPERATIONS

__all__ = ["OWN"]

OWN = table_of(*ACCOUNT_OPERATIONS, *PERSON_OPERATIONS, *WEB_OPERATIONS)
