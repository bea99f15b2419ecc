"""Multipart forms: long parameters and external tables, as clickhouse-connect sends them."""

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.external import ExternalData

from local_stack.bodies import memory_file
from local_stack.exceptions import EngineError
from local_stack.forms import boundary_of, read_form, split_types
from tests.local_stack.conftest import Http

pytestmark = pytest.mark.clickhouse

NUMBERS = "a UInt64, b String"


def post(http: Http, files: dict[str, object], **args: object) -> httpx.Response:
    """POST a form: texts are fields, (file name, content) are tables."""
    parts = {k: (None, v) if isinstance(v, str) else v for k, v in files.items()}
    params = {"database": http.database} | {name: str(value) for name, value in args.items()}
    return http.client.post("/", params=params, files=parts)  # type: ignore[arg-type]


def test_ten_thousand_ids_bind(clickhouse_url: str) -> None:
    ids = [f"event_{n:026d}" for n in range(10_000)]
    with clickhouse_connect.get_client(dsn=clickhouse_url) as client:
        sql = "SELECT length({ids:Array(String)}), arrayUniq({ids:Array(String)}), {x:String}"
        got = client.query(sql, parameters={"ids": ids, "x": "a\tb'\\ü\n"})
        assert got.result_rows == [(10_000, 10_000, "a\tb'\\ü\n")]
        with client.query_rows_stream(
            "SELECT arrayJoin({ids:Array(String)}) AS id", parameters={"ids": ids}
        ) as rows:
            assert [row[0] for row in rows] == ids


def test_external_data_is_a_table_of_its_query(clickhouse_url: str) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse_url) as client:
        data = ExternalData(
            file_name="people.csv", data=b"1,ann\n2,bob\n", fmt="CSV", structure=NUMBERS
        )
        data.add_file(
            file_name="ids.tsv",
            data=b"1\t(1,2)\n3\t(3,4)\n",
            types=["UInt64", "Tuple(UInt8, UInt8)"],
        )
        sql = "SELECT b, _2 FROM people JOIN ids ON a = _1"
        for _ in range(2):
            assert client.query(sql, external_data=data).result_rows == [("ann", (1, 2))]
        names = ["ann"] * 1000
        long = client.query(
            f"{sql} WHERE b IN {{names:Array(String)}}",
            parameters={"names": names},
            external_data=data,
        )
        assert long.result_rows == [("ann", (1, 2))]
        assert client.raw_query(f"{sql} FORMAT JSONEachRow", external_data=data) == (
            b'{"b":"ann","_2":[1,2]}\n'
        )


async def test_external_data_over_asyncio(clickhouse_url: str) -> None:
    client = await clickhouse_connect.get_async_client(dsn=clickhouse_url)
    data = ExternalData(file_name="n.tsv", data=b"7\n8\n", types="UInt64")
    got = await client.query(
        "SELECT sum(_1), length({ids:Array(UInt64)}) FROM n",
        parameters={"ids": list(range(5000))},
        external_data=data,
    )
    assert got.result_rows == [(15, 5000)]
    await client.close()


def test_a_form_carries_query_parameters_settings_and_tables(http: Http) -> None:
    got = post(
        http,
        {
            "query": "SELECT a, b, {x:UInt8}, getSetting('max_block_size') FROM mine",
            "param_x": "5",
            "max_block_size": "77",
            "mine_structure": NUMBERS,
            "mine": ("mine", b"1\tone\n"),
        },
    )
    assert got.text == "1\tone\t5\t77\n", got.text
    assert http.ask("SELECT * FROM mine").status_code == 404
    assert (
        post(http, {"x": ("x", b"")}, query="SELECT count() FROM x", x_types="UInt8").text == "0\n"
    )


def test_an_external_table_leaves_its_session(http: Http) -> None:
    for _ in range(2):
        got = post(
            http, {"x": ("x", b"1\n")}, query="SELECT * FROM x", x_types="UInt8", session_id="forms"
        )
        assert got.text == "1\n"
    assert http.ask("SELECT * FROM x", session_id="forms").status_code == 404


def test_an_insert_comes_from_an_external_table_or_the_query(http: Http, table: str) -> None:
    args = {"query": "INSERT INTO t SELECT a, b FROM x", "x_structure": NUMBERS}
    assert post(http, {"x": ("x", b"1\tone\n2\ttwo\n")}, **args).status_code == 200
    assert post(http, {"query": "INSERT INTO t VALUES (3, 'three')"}).status_code == 200
    assert http.rows("SELECT a, b FROM t ORDER BY a") == "1\tone\n2\ttwo\n3\tthree"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({}, "36"),
        ({"x_types": "Nope"}, "50"),
        ({"x_types": "UInt8", "x_format": "Nope"}, "73"),
        ({"x_types": "UInt64, UInt8"}, "27"),
        ({"x_structure": "a UInt8); DROP TABLE t; --"}, "62"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(
    http: Http, args: dict[str, str], code: str
) -> None:
    answer = post(http, {"x": ("x", b"zz\n")}, query="SELECT * FROM x", **args)
    assert answer.headers["X-ClickHouse-Exception-Code"] == code, answer.text
    assert answer.status_code in {400, 404}


def test_a_form_cut_short_is_refused(http: Http) -> None:
    request = http.client.build_request("POST", "/", files={"query": (None, "SELECT 1")})
    whole = request.read()
    head = {"Content-Type": request.headers["Content-Type"]}
    assert http.client.post("/", content=whole, headers=head).text == "1\n"
    for cut in (0, 10, len(whole) // 2, len(whole) - 5):
        answer = http.client.post("/", content=whole[:cut], headers=head)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "36", cut


def test_a_body_from_an_html_form_is_the_query_as_with_a_server(http: Http) -> None:
    head = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.client.post("/", content="SELECT 'a+b%20'", headers=head).text == "a+b%20\n"


def test_boundaries_and_types_are_read() -> None:
    assert boundary_of('multipart/form-data; charset=x; boundary="a b"') == b"a b"
    assert boundary_of("Multipart/Form-Data;boundary=ab;x=y") == b"ab"
    assert boundary_of("application/x-www-form-urlencoded") == b""
    assert split_types("UInt8, Tuple(a Int8, b Int8),Enum8('a,b' = 1)") == [
        "UInt8",
        "Tuple(a Int8, b Int8)",
        "Enum8('a,b' = 1)",
    ]


def test_content_may_hold_what_looks_like_a_boundary() -> None:
    with memory_file() as form:
        form.write(b'preamble\r\n--b\r\nContent-Disposition: form-data; name="q"\r\n\r\n')
        form.write(b"--b\r\n-- b\r\n\r\n--b--\r\nepilogue")
        fields, tables = read_form(form, b"b", {}, memory_file)
        assert (fields, tables) == ({"q": "--b\r\n-- b\r\n"}, [])
    with memory_file() as form, pytest.raises(EngineError):
        form.write(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--")
        read_form(form, b"b", {}, memory_file)
