""".csv files: headers, labels, numbers, every kind of bad cell with its line and column, read_features."""

import csv
import gzip
import time

import numpy as np
import pytest

from fcnet.data import load, read_features
from fcnet.data.table import TableChoices, read_table
from fcnet.data.targets import codes_of
from fcnet.errors import DataNotice

HEADER = "a,b,label\n"
ROWS = [f"{i * 7 % 30},{i * 7 % 30 * 0.5},{'xyz'[i % 3]}\n" for i in range(30)]


@pytest.fixture
def write(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "toy.csv"
        path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
        return path

    return write


def refuse(path, target, *words):
    with pytest.raises(ValueError) as caught:
        load(path, target=target)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message, message


def test_a_table_with_a_header(write):
    ds = load(write(HEADER + "".join(ROWS)), target="label")
    assert ds.summary() == "toy: 24 train, 3 val, 3 test, 2 features, 3 classes"
    assert ds.features == ("a", "b")
    assert ds.classes == ("x", "y", "z")
    assert ds.preprocess == "auto"
    assert ds.X_train.dtype == np.float64
    for X, y in ds.splits().values():
        np.testing.assert_array_equal(X[:, 1], X[:, 0] * 0.5)
        np.testing.assert_array_equal(y, X[:, 0] % 3)  # 7 is 1 modulo 3


@pytest.mark.parametrize("target", ["1", 1])
def test_a_table_without_a_header(write, target):
    ds = load(write("".join(f"{i * i},{i % 2},{-i}\n" for i in range(20))), target=target)
    assert ds.features == ("0", "2")
    assert len(ds.X_train) == 16
    assert 0 in np.concatenate([X[:, 0] for X, _ in ds.splits().values()])  # the first row is data


def test_how_spreadsheets_save(write):
    text = "\ufeff" + (HEADER + "".join(ROWS)).replace("\n", "\r\n") + "\r\n\r\n"
    assert load(write(text), target="label").features == ("a", "b")
    quoted = ' a , "b" ,"the ""label"""\n'.replace(', "', ',"').replace('" ,', '",')
    ds = load(write(quoted + "".join(ROWS)), target='the "label"')
    assert ds.features == ("a", "b")


def test_numeric_labels_sort_as_numbers(write):
    rows = "".join(f"{i},{[10, 9, -1][i % 3]}\n" for i in range(30))
    assert load(write("a,label\n" + rows), target="label").classes == ("-1", "9", "10")
    rows = "".join(f"{i},{['1.0', ' 2', '1e0'][i % 3]}\n" for i in range(30))
    assert load(write("a,label\n" + rows), target="label").classes == ("1", "2")


def body(row, at=4):
    return HEADER + "".join(ROWS[:at]) + row + "".join(ROWS[at:])


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        (HEADER + "".join(ROWS), None, ["target: expected the label column, one of a, b, label"]),
        (HEADER + "".join(ROWS), "lable", ["target: expected one of a, b, label", "did you mean 'label'"]),
        (HEADER + "".join(ROWS), "3", ["target: expected one of a, b, label; got '3'"]),
        ("", "label", ["got an empty file"]),
        ("\n\n", "label", ["got an empty file"]),
        (HEADER, "label", ["expected rows below the header"]),
        ("label\n" + "0\n1\n" * 9, "label", ["expected columns to learn from beside label; got no other"]),
        (HEADER.replace("b", "B", 1) + "".join(ROWS), "LABEL", ["got 'LABEL'; did you mean 'label'?"]),
        ("5.1,3.5,setosa\n" * 9, "species", ["expected one of 0, 1, 2 (numbers, for the first row holds no names"]),
        ("5.1,3.5,setosa\n" * 9, None, ["one of 0, 1, 2 (numbers, for the first row", "--header yes"]),
        (body("7,-1e300,x\n"), "label", ["line 6, column 'b': expected a number of size 1e+150 or less; got -1e+300"]),
        ("a,a,label\n1,2,x\n", "label", ["'a' twice"]),
        (b"\x1f\x8b\x08\x00", "label", ["expected a complete gzip file; got a damaged one"]),
        (b"PK\x03\x04\xff", "label", ["a spreadsheet or a zip archive; save the sheet as CSV"]),
        (body("7,red,x\n"), "label", ["column 'b': expected a number, as in 30 of 31 rows; got 'red'; correct"]),
        (body("7,1_0,x\n"), "label", ["line 6, column 'b': expected a number", "got '1_0'"]),
        (body("7,True,x\n"), "label", ["column 'b': expected a number", "got 'True'; correct it, count it as missing"]),
        (body('7,"1,5",x\n'), "label", ["got '1,5'; write numbers with one decimal sign"]),
        (body("7,12 %,x\n"), "label", ["got '12 %'; write numbers with one decimal sign, the same in the whole file"]),
        (HEADER + "1,2,\n" * 9, "label", ["column 'label': expected targets; got none, all are missing"]),
        (body("7,8\n"), "label", ["line 6: expected 3 cells; got 2"]),
        (body("7,8,x,9\n"), "label", ["line 6: expected 3 cells; got 4"]),
        (body("\n\n7,-inf,x\n"), "label", ["line 8, column 'b': expected a finite number; got -inf"]),
        (body("7,1e999,x\n"), "label", ["line 6, column 'b'", "got inf"]),
        (body('7,8,"x\n'), "label", ["damaged row"]),
        (body('7,8,"x"y\n'), "label", ["damaged row after line 5", 'its own quotes are doubled: "a ""b"""']),
        (HEADER + "".join(f"{i},2,{i % 2 + 0.5}\n" for i in range(20)), "label",
         ["line 2, column 'label': labels are not integers: got '0.5'"]),
        (HEADER + "".join(ROWS[:4]), "label", ["column 'label': expected at least 5 samples", "got 4 samples; give"]),
        (HEADER + ROWS[0], "label", ["column 'label': expected at least 2 classes; got only label 'x'"]),
        (HEADER + "1,2,x\n" * 20, "label", ["column 'label': expected at least 2 classes; got only label 'x'"]),
        (HEADER + "1,2,x\n1,2,y\n" * 10, "label", ["expected columns to learn", "'a': the same value in every row"]),
        (HEADER + "".join(f"{i % 7},2,{i}\n" for i in range(99)), "label",
         ["column 'label': expected at most 50 classes", "got 99 different whole numbers", "mse", "softmax"]),
        (b"a,label\n\0\xff\xfe\x80", "label", ["expected"]),
    ],
)  # fmt: skip
def test_errors(write, text, target, words):
    refuse(write(text), target, *words)


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(write, seed):
    refuse(write(np.random.default_rng(seed).bytes(300)), "label")


def test_the_line_number_counts_quoted_line_ends(write):
    rows = "".join(f'{i * 7 % 40},"x\ny"\n{i},z\n' for i in range(40))
    refuse(write(f"a,label\n{rows}red,z\n"), "label", "line 122, column 'a'")


def test_read_features_keeps_the_asked_columns_in_order(write):
    path = write("c,a,label,b\n1,2,x,3\n4,5,,6\n")
    X = read_features(path, ("a", "b", "c"))
    np.testing.assert_array_equal(X, [[2, 3, 1], [5, 6, 4]])
    assert X.dtype == np.float64
    assert read_features(str(path), ["b"], dtype=np.float32).dtype == np.float32


def test_read_features_of_a_file_without_header(write):
    path = write("1,2,3\n4,5,6\n")
    np.testing.assert_array_equal(read_features(path, ("2", "0")), [[3, 1], [6, 4]])


def test_read_features_errors(write, tmp_path):
    path = write("alpha,beta\n1,2\n3,red\n")
    with pytest.raises(ValueError, match=r"toy\.csv: column: expected one of alpha, beta; got 'bate'; .*'beta'"):
        read_features(path, ("bate",))
    with pytest.raises(ValueError, match=r"line 3, column 'beta': expected a number, .*got 'red'"):
        read_features(path, ("alpha", "beta"))
    np.testing.assert_array_equal(read_features(path, ("alpha",)), [[1], [3]])
    with pytest.raises(ValueError, match=r"expected one of 0, 1 .numbers, for the first row holds no names"):
        read_features(write("1,2\n"), ("alpha",))
    with pytest.raises(
        ValueError, match=r"line 2, column 'b': expected a number of size 3\.40282e\+38 or less; got 1e\+39"
    ):
        read_features(write("a,b\n1,1e39\n"), ("b",), dtype=np.float32)
    with pytest.raises(ValueError, match="features: expected a sequence of column names; got 'alpha'"):
        read_features(path, "alpha")
    with pytest.raises(FileNotFoundError, match=r"none\.csv: expected a table"):
        read_features(tmp_path / "none.csv", ("a",))


def test_a_large_table_is_read_quickly(write):
    """Without a slow path for each cell; judged by what Python's own reader takes, since machines differ."""
    row = [f"{i * 0.37:.6f}" for i in range(51)]
    path = write("".join(f"{','.join(row[i % 2 : 50 + i % 2])},{i % 2}\n" for i in range(10_000)))
    start = time.process_time()
    assert load(path, target="50").input_dim == 50
    ours, start = time.process_time() - start, time.process_time()
    with open(path, newline="") as file:
        assert sum(float(cell) for cells in csv.reader(file) for cell in cells) > 0
    assert ours < 5 * (time.process_time() - start)  # it is 1


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["01", "1"], ("01", "1")),
        (["1", "2", "03"], ("03", "1", "2")),
        (["0", "10"], ("0", "10")),
        (["1", "1.0", "a"], ("1", "1.0", "a")),
    ],
)
def test_a_leading_zero_or_text_keeps_labels_apart_as_they_are_written(write, labels, classes):
    text = "a,label\n" + "".join(f"{i},{labels[i % len(labels)]}\n" for i in range(30))
    ds = load(write(text), target="label")
    assert ds.classes == classes
    for X, y in ds.splits().values():
        assert [ds.classes[code] for code in y] == [labels[int(x) % len(labels)] for x in X[:, 0]]


@pytest.mark.parametrize(
    "numbers",
    [
        [2**53 + 1, 2**53, 2**53 + 2],
        [-(2**63), -(2**63) + 1, 2**63 - 1],
        [-(10**30) - 1, -(10**30), 10**30],
        [2**64 - 1, 2**64 - 2, 0],
    ],
)
def test_labels_are_exact_whole_numbers_of_any_length(write, numbers):
    spelled = [[f"{number}", f"{number}.0", f" {number} "][at] for at, number in enumerate(numbers)]
    path = write("a,label\n" + "".join(f"{i},{spelled[i % 3]}\n" for i in range(30)))
    ds = load(path, target="label")
    assert ds.classes == tuple(map(str, sorted(numbers)))
    for X, y in ds.splits().values():
        assert [ds.classes[code] for code in y] == [str(numbers[int(x) % 3]) for x in X[:, 0]]
    read = read_table(path, as_text=lambda names: ["label"])
    codes = codes_of(read, "label", [str(number) for number in numbers])
    np.testing.assert_array_equal(codes, np.arange(30) % 3)


@pytest.mark.parametrize("label", ["9007199254740993.5", "1e999", "1e-9", "-inf"])
def test_a_label_that_is_no_whole_number_is_none(write, label):
    refuse(
        write(f"a,label\n1,1\n2,2\n3,{label}\n"),
        "label",
        f"line 4, column 'label': labels are not integers: got '{label}'",
    )


def test_classes_that_are_known_number_the_labels(write):
    def codes(path, classes):
        return codes_of(read_table(path, as_text=lambda names: ["label"]), "label", classes)

    path = write("b,label\n1,y\n3, x\n")
    np.testing.assert_array_equal(codes(path, ("z", "y", "x")), [1, 2])
    with pytest.raises(
        ValueError, match=r"line 3, column 'label': expected a label that the model knows \(y\); got 'x'"
    ):
        codes(path, ("y",))
    path = write("a,label\n1,1.0\n2,1\n3,01\n")
    np.testing.assert_array_equal(codes(path, ("01", "1")), [1, 1, 0])
    np.testing.assert_array_equal(codes(path, ("01", "1", "1.0")), [2, 1, 0])
    with pytest.raises(ValueError, match="got '01'"):
        codes(path, ("1", "2"))


# What a file does not say of itself


ABC = [[f"{i * 7 % 30}.5", f"{i % 5}.25", "xyz"[i % 3]] for i in range(30)]


@pytest.mark.parametrize("sep", [",", ";", "\t", "|", "  ", ", "])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("header", [["a", "b", "label"], None])
def test_separator_decimal_sign_and_header_are_found(write, sep, decimal, header):
    quote = '"' if decimal == "," and sep.strip() == "," else ""
    rows = [[*(quote + cell.replace(".", decimal) + quote for cell in row[:2]), row[2]] for row in ABC]
    text = "".join(sep.join(row) + "\r\n" for row in ([header] if header else []) + rows) + "\r\n"
    ds = load(write(text), target="label" if header else "-1")
    assert ds.features == (("a", "b") if header else ("0", "1"))
    found = sorted(map(tuple, np.concatenate([X for X, _ in ds.splits().values()]).tolist()))
    assert found == sorted((float(row[0]), float(row[1])) for row in ABC)
    assert ds.classes == ("x", "y", "z")


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("0,1,2", True),
        ("1,2,3", True),
        ("2018,2019,2020", True),
        ("2018,2020,2023", False),
        ("1,1,1", False),
        ("?,2,3", False),
        ("a,b,c", True),
        ("a,2,3", True),
        ('" a","b, c",c', True),
    ],
)
def test_whether_the_first_row_holds_names(write, first, header):
    rows = "".join(f"{i * 7 % 31}.5,{i * 3 % 11}.5,{i * i % 7}.25\n" for i in range(30))
    plain = not header or not any(cell.isdecimal() for cell in first.split(","))
    read = read_table(write(f"{first}\n{rows}"))
    assert read.header == header
    assert read.count == 30 + (not header)
    assert (not read.notes) == plain
    if first == "1,1,1":  # no names
        return
    other = read_table(write(f"{first}\n{rows}"), TableChoices.of(header="no" if header else "yes").reading)
    assert (other.header, other.notes) == (not header, ())


def test_two_years_are_names_where_no_value_is_like_them(write):
    rows = [f"{'abc'[i % 3]},{i * 7 % 31}.5,{i * 3 % 11}\n" for i in range(30)]
    assert read_table(write("name,2001,2002\n" + "".join(rows))).names == ("name", "2001", "2002")
    assert not read_table(write("".join(rows))).header
    assert not read_table(write("a,12,7\n" + "".join(rows))).header


def test_text_everywhere(write):
    rows = "".join(f"{'abc'[i % 3]},{'de'[i % 2]},{'xy'[i % 2]}\n" for i in range(30))
    assert not read_table(write(rows)).header
    assert read_table(write(f"first,second,label\n{rows}")).names == ("first", "second", "label")
    ds = load(write(rows), target=2)
    assert sum(len(y) for _, y in ds.splits().values()) == 30


def test_what_spreadsheets_and_r_write(write):
    rows = "".join(f"{';'.join(row)};\n" for row in ABC)
    assert read_table(write(f"a;b;label;\n{rows}")).names == ("a", "b", "label")  # each line ends in a separator
    assert read_table(write(rows)).names == ("0", "1", "2")
    rows = "".join(f'"{at}" {" ".join(row)}\n' for at, row in enumerate(ABC, 1))
    read = read_table(write(f'"a" "b" "label"\n{rows}'))  # names of rows, and none above them
    assert read.names == ("Unnamed: 0", "a", "b", "label")
    with pytest.warns(DataNotice, match="left out: Unnamed: 0 .it counts the rows."):
        ds = load(write("".join(f"{at},{','.join(row)}\n" for at, row in enumerate([["a", "b", "label"], *ABC]))[1:]),
                  target="label")  # fmt: skip
    assert ds.features == ("a", "b")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(write, encoding):
    path = write("größe,b,label\n" + "".join(ROWS), encoding)
    if encoding == "latin-1":
        with pytest.warns(DataNotice, match="it is not UTF-8; read as Windows-1252"):
            assert load(path, target="label").features == ("größe", "b")
    else:
        assert load(path, target="label").features == ("größe", "b")


def test_packed_and_other_files(tmp_path):
    text = (HEADER + "".join(ROWS)).encode()
    for name, content in (("a.tsv", text.replace(b",", b"\t")), ("a.TXT", text), ("a.data", text)):
        for suffix, pack in (("", bytes), (".gz", gzip.compress)):
            (tmp_path / (name + suffix)).write_bytes(pack(content))
            ds = load(tmp_path / (name + suffix), target="label")
            assert ds.summary() == "a: 24 train, 3 val, 3 test, 2 features, 3 classes"


def test_parquet(tmp_path):
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.DataFrame([[float(a), b, c] for a, b, c in ABC], columns=["a", "b", "label"])
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    one, two = (load(tmp_path / f"t{suffix}", target="label") for suffix in (".parquet", ".csv"))
    np.testing.assert_array_equal(one.X_train, two.X_train)
    assert one.plan.to_json()["columns"] == two.plan.to_json()["columns"]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    refuse(tmp_path / "bad.parquet", "label", "expected a Parquet file; got a damaged or other one")


def test_rows_without_a_target_are_left_out_and_counted(write):
    rows = "".join(f"{i * 7 % 30},{i % 4 or '?'}\n" for i in range(40))
    with pytest.warns(DataNotice, match=r"10 of 40 rows are left out: their target \(label\) is missing"):
        ds = load(write("a,label\n" + rows), target="label")
    assert ds.classes == ("1", "2", "3")
    with pytest.warns(DataNotice, match="10 of 40 rows"):
        ds = load(write("a,label\n" + rows), target="label", targets="numbers")
    assert sum(len(y) for _, y in ds.splits().values()) == 30


def test_columns_are_chosen(write):
    path = write("a,b,c,label\n" + "".join(f"{i * 3 % 7},{i % 5},{i % 4 or -99},{i % 2}\n" for i in range(40)))
    assert load(path, target="label", drop="b").features == ("a", "c")
    assert load(path, target=-1, only=["c", 0]).features == ("a", "c")
    assert load(path, target=3, missing="-99", drop="a,b").features == ("c", "c missing")
    ds = load(path, target="label", ordinal={"b": ["4", "3", "2", "1", "0"]}, only="b")
    assert ds.plan.columns[1].levels == ("4", "3", "2", "1", "0")
    assert {tuple(row) for row in ds.X_train.tolist()} == {(0,), (1,), (2,), (3,), (4,)}


def test_a_column_may_become_text_late(write, monkeypatch):
    monkeypatch.setattr("fcnet.data.text_files.BLOCK", 30)
    cells = [str(i % 4) for i in range(99)] + ["4+"] * 50
    path = write("a,b,label\n" + "".join(f"{cell},{i * i % 50},{i % 2}\n" for i, cell in enumerate(cells)))
    ds = load(path, target="label")
    assert ds.features == ("a=0", "a=1", "a=2", "a=3", "a=4+", "b")


def test_control_characters_in_names_are_escaped(write):
    path = write("\x1b[31ma,b,label\n" + "".join(f"same,{i % 5},{i % 2}\n" for i in range(40)))
    with pytest.warns(DataNotice, match=r"left out: \\x1b\[31ma"):
        ds = load(path, target="label")
    assert "\x1b" not in ds.plan.describe()
    with pytest.raises(ValueError, match=r"expected one of \\x1b\[31ma, b, label"):
        load(path, target="lab el")


def test_time_is_in_proportion_to_the_columns(write):
    """Told by what Python's own reader takes for the same, since machines differ."""
    ratios = []
    for width in (500, 8000):
        row = ",".join(str(i % 7) for i in range(width))
        path = write(",".join(f"g{i}" for i in range(width)) + ",y\n" + "".join(f"{row},{i % 2}\n" for i in range(20)))
        start = time.process_time()
        assert len(read_table(path, as_text=lambda names: ["y"]).names) == width + 1
        ours, start = time.process_time() - start, time.process_time()
        with open(path, newline="") as file:
            assert sum(len(cells) for cells in csv.reader(file)) > 0
        ratios.append(ours / (time.process_time() - start))
    assert ratios[1] < 5 * ratios[0]
