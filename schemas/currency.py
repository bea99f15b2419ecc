"""Currencies: ISO 4217's codes in lower case, and to how many digits an amount is rounded.

The list is that of 2026; funds codes are in it, metals and other units without minor digits aren't.
"""

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

_CODES = {
    0: "bif clp djf gnf isk jpy kmf krw pyg rwf ugx uyi vnd vuv xaf xof xpf",
    2: """
        aed afn all amd aoa ars aud awg azn bam bbd bdt bmd bnd bob bov brl bsd btn bwp byn bzd
        cad cdf che chf chw cny cop cou crc cup cve czk dkk dop dzd egp ern etb eur fjd fkp gbp
        gel ghs gip gmd gtq gyd hkd hnl htg huf idr ils inr irr jmd kes kgs khr kpw kyd kzt lak
        lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn mxv myr mzn nad ngn nio
        nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sdg sek sgd shp sle sos
        srd ssp stn svc syp szl thb tjs tmt top try ttd twd tzs uah usd usn uyu uzs ved ves wst
        xcd xcg yer zar zmw zwg
    """,
    3: "bhd iqd jod kwd lyd omr tnd",
    4: "clf uyw",
}
MINOR_DIGITS = {code: digits for digits, codes in _CODES.items() for code in codes.split()}
"""Digits after the point of an amount in each currency."""


def _known(value: object) -> str:
    code = value.lower() if isinstance(value, str) else ""
    if code not in MINOR_DIGITS:
        raise PydanticCustomError(
            "unknown_currency", "is no currency of ISO 4217: write a code like usd or eur"
        )
    return code


Currency = Annotated[str, BeforeValidator(_known)]
"""A currency's code, however it was written."""
