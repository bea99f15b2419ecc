"""One file per migration: `NNNN_name.py`."""
