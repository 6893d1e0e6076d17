"""The DICOM door: the only folder that knows pynetdicom, which is told here to keep quiet about what it carries.

Its handlers would log whole data sets and its messages quote peers; identifiers are never logged (see `record.log`).
"""

from pynetdicom import _config

_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.STORE_SEND_CHUNKED_DATASET = True
"""Files are sent from the disk as they are, never decoded on the way."""
