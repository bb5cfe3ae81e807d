"""Closed sets from standards: countries, currencies, and the shapes of locales.

Time zones are no constant here: the set belongs to the machine's time zone database, and is an argument.
"""

from __future__ import annotations

import re
from typing import Final

#: ISO 3166-1 alpha-2, officially assigned, lower case.
COUNTRY_CODES: Final = frozenset(
    """
    ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bl bm bn bo bq br bs bt bv bw
    by bz ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg eh er es et fi
    fj fk fm fo fr ga gb gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in
    io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me
    mf mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf
    pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sj sk sl sm sn so sr ss st sv
    sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug um us uy uz va vc ve vg vi vn vu wf ws ye
    yt za zm zw
    """.split()  # noqa: SIM905 - a list of hundreds of quoted words cannot be read
)

#: ISO 4217, currencies in use (no funds, metals or test codes).
CURRENCY_CODES: Final = frozenset(
    """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF
    CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD
    HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD
    LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK
    PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS
    TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
    """.split()  # noqa: SIM905 - a list of hundreds of quoted words cannot be read
)

_LOCALE: Final = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?")


def is_country(code: str) -> bool:
    """Whether `code` is an assigned country code, in lower case."""
    return code in COUNTRY_CODES


def is_currency(code: str) -> bool:
    """Whether `code` is a currency in use, in upper case."""
    return code in CURRENCY_CODES


def is_locale(tag: str) -> bool:
    """Whether `tag` is a BCP 47 tag of language, optional script and optional region, in canonical case.

    Variants and extensions are refused: nothing is formatted differently by them here.
    """
    match = _LOCALE.fullmatch(tag)
    if match is None:
        return False
    region = match.group(3)
    return region is None or region.isdigit() or region.lower() in COUNTRY_CODES
