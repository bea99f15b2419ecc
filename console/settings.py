"""What the console needs to know, from the environment (TALLYLOG_...)."""

from pydantic import Field

from schemas.settings import Places


class Settings(Places):
    """The console's settings.

    console_port       Port of `tallylog console` when it runs alone.
    catalog_refresh_s  How often the catalog's changes are taken in: revoked keys end after this.
    body_bytes_max     Largest body of a request about the catalog.
    block_epoch        Layout of the block topic, as the workers have it.
    invoice_grace_s    How long after its end a period is closed: what comes by then is on it.
    invoice_every_s    How often it is looked for periods to close.
    """

    console_port: int = Field(default=8081, ge=1, le=65535)
    catalog_refresh_s: float = Field(default=1.0, gt=0)
    body_bytes_max: int = Field(default=1 << 20, ge=1)
    block_epoch: int = Field(default=0, ge=0, lt=1 << 16)
    invoice_grace_s: float = Field(default=3600.0, ge=0)
    invoice_every_s: float = Field(default=10.0, gt=0)
