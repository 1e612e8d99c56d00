""".csv files: headers, labels, numbers, every kind of bad cell with its line and column, read_features."""

import csv
import time

import numpy as np
import pytest

from fcnet.data import load, read_features
from fcnet.data.table import read_table

HEADER = "a,b,label\n"
ROWS = [f"{i},{i * 0.5},{'xyz'[i % 3]}\n" for i in range(30)]


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
    assert ds.preprocess == "standardize"
    assert ds.X_train.dtype == np.float64
    for X, y in ds.splits().values():
        np.testing.assert_array_equal(X[:, 1], X[:, 0] * 0.5)
        np.testing.assert_array_equal(y, X[:, 0] % 3)


@pytest.mark.parametrize("target", ["1", 1])
def test_a_table_without_a_header(write, target):
    ds = load(write("".join(f"{i},{i % 2},{-i}\n" for i in range(20))), target=target)
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
        ("", "label", ["got an empty file"]),
        ("\n\n", "label", ["got an empty file"]),
        (HEADER, "label", ["expected rows below the header"]),
        ("label\n0\n1\n", "label", ["expected feature columns beside 'label'"]),
        ("a;b;label\n1;2;x\n", "label", ["no comma but semicolons: save the file as comma-sep"]),
        ("a\tb\tlabel\n1\t2\tx\n", "label", ["no comma but tabs"]),
        (HEADER.replace("b", "B", 1) + "".join(ROWS), "LABEL", ["got 'LABEL'; did you mean 'label'?"]),
        ("5.1,3.5,setosa\n" * 9, "species", ["2 cells of its first row are numbers: does it lack its header?"]),
        ("5.1,3.5,setosa\n" * 9, None, ["one of 5.1, 3.5, setosa; got none; 2 cells", "does it lack its header?"]),
        ("5.1,5.1,setosa\n" * 9, "setosa", ["twice", "does it lack its header?"]),
        (body("7,-1e300,x\n"), "label", ["line 6, column 'b': expected a number of size 1e+150 or less; got -1e+300"]),
        ("a,a,label\n1,2,x\n", "label", ["'a' twice"]),
        (",a,label\n1,2,x\n", "label", ["got none for column 1", "index=False"]),
        ('"a a";"b";"label"\n1;2;x\n', "label", ["no comma but semicolons"]),
        ('"a, b"\t"label"\n1\tx\n', "label", ["no comma but tabs"]),
        ("a|b|label\n1|2|x\n", "label", ["no comma but vertical bars"]),
        ("a, A;b;label\n1;2;x\n", "label", ["the first row holds semicolons: is the separator a comma?"]),
        ("a b label\n1 2 x\n", "label", ["the first row is a single cell: is the separator a comma?"]),
        (b"\x1f\x8b\x08\x00", "label", ["a file packed by gzip; unpack it: gzip -dc "]),
        (b"PK\x03\x04\xff", "label", ["a spreadsheet or a zip archive; save the sheet as CSV"]),
        (body("7,red,x\n"), "label", ["line 6, column 'b': expected a number; got 'red'; encode text"]),
        (body("7,1_0,x\n"), "label", ["line 6, column 'b': expected a number; got '1_0'"]),
        (body("7, ?,x\n"), "label", ["got '?'; a missing value is to be filled in, or its row removed"]),
        (body("7,N/A,x\n"), "label", ["got 'N/A'; a missing value is to be"]),
        (body("7,True,x\n"), "label", ["got 'True'; write truth values as 1 and 0"]),
        (body('7,"1,5",x\n'), "label", ["got '1,5'; write numbers with a decimal point and without a unit"]),
        (body("7,12 %,x\n"), "label", ["got '12 %'; write numbers with a decimal point and without a unit"]),
        (HEADER + "1,2,0\n1,2,1\n1,2,?\n", "label", ["line 4, column 'label': expected a label; got '?', where"]),
        (body("7,,x\n"), "label", ["line 6, column 'b'", "an empty cell"]),
        (body("7,8, \n"), "label", ["line 6, column 'label'", "an empty cell"]),
        (body("7,8\n"), "label", ["line 6: expected 3 cells; got 2"]),
        (body("7,8,x,9\n"), "label", ["line 6: expected 3 cells; got 4"]),
        (body("nan,8,x\n"), "label", ["line 6, column 'a': expected a finite number; got nan"]),
        (body("\n\n7,-inf,x\n"), "label", ["line 8, column 'b': expected a finite number; got -inf"]),
        (body("7,1e999,x\n"), "label", ["line 6, column 'b'", "got inf"]),
        (body('7,8,"x\n'), "label", ["damaged row"]),
        (body('7,8,"x"y\n'), "label", ["damaged row near line 6", 'its own quotes are doubled: "a ""b"""']),
        (HEADER + "".join(f"{i},2,{i % 2 + 0.5}\n" for i in range(20)), "label",
         ["line 2, column 'label': labels are not integers: got '0.5'"]),
        (HEADER + "1,2,0\n1,2,1\n1,2,nan\n", "label", ["line 4, column 'label'", "'nan'"]),
        (HEADER + "".join(ROWS[:4]), "label", ["column 'label': expected at least 5 samples", "got 4 samples; give"]),
        (HEADER + "1,2,x\n" * 20, "label", ["column 'label': expected at least 2 classes; got only label 'x'"]),
        ((HEADER + "1,2,é\n").encode("latin1"), "label", ["expected UTF-8 text"]),
        (b"a,label\n\0\xff\xfe\x80", "label", ["expected"]),
        ((HEADER + "".join(ROWS)).encode("utf-16"), "label", ["expected UTF-8"]),
    ],
)  # fmt: skip
def test_errors(write, text, target, words):
    refuse(write(text), target, *words)


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(write, seed):
    refuse(write(np.random.default_rng(seed).bytes(300)), "label")


def test_the_line_number_counts_quoted_line_ends(write):
    path = write('a,label\n1,"x\ny"\n2,z\nred,z\n')
    refuse(path, "label", "line 5, column 'a'")


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
    with pytest.raises(ValueError, match="line 3, column 'beta': expected a number; got 'red'"):
        read_features(path, ("alpha", "beta"))
    np.testing.assert_array_equal(read_features(path, ("alpha",)), [[1], [3]])
    with pytest.raises(ValueError, match="does it lack its header"):
        read_features(write("1,2\n"), ("alpha",))
    with pytest.raises(
        ValueError, match=r"line 2, column 'b': expected a number of size 3\.40282e\+38 or less; got 1e\+39"
    ):
        read_features(write("a,b\n1,1e39\n"), ("b",), dtype=np.float32)
    with pytest.raises(ValueError, match="features: expected a sequence of column names; got 'alpha'"):
        read_features(path, "alpha")
    with pytest.raises(FileNotFoundError, match=r"none\.csv: expected a CSV file"):
        read_features(tmp_path / "none.csv", ("a",))


def test_a_large_table_is_read_quickly(write):
    """Without a slow path for each cell; told by what Python's own reader takes, since machines differ."""
    row = ",".join(f"{i * 0.37:.6f}" for i in range(50))
    path = write("".join(f"{row},{i % 2}\n" for i in range(10_000)))
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
    codes = read_table(path, "label", None, [str(number) for number in numbers]).labels
    np.testing.assert_array_equal(codes, np.arange(30) % 3)


@pytest.mark.parametrize("label", ["9007199254740993.5", "1e999", "1e-9", "-inf"])
def test_a_label_that_is_no_whole_number_is_none(write, label):
    refuse(
        write(f"a,label\n1,1\n2,2\n3,{label}\n"),
        "label",
        f"line 4, column 'label': labels are not integers: got '{label}'",
    )


def test_known_columns_and_classes_go_before_what_the_file_has(write):
    path = write("note,b,label,a\nred,1,y,2\n,3, x,4\n")
    table = read_table(path, "label", ("a", "b"), ("z", "y", "x"))
    np.testing.assert_array_equal(table.X, [[2, 1], [4, 3]])
    np.testing.assert_array_equal(table.labels, [1, 2])
    with pytest.raises(
        ValueError, match=r"line 3, column 'label': expected a label that the model knows \(y\); got 'x'"
    ):
        read_table(path, "label", ("a", "b"), ("y",))
    path = write("a,label\n1,1.0\n2,1\n3,01\n")
    np.testing.assert_array_equal(read_table(path, "label", None, ("01", "1")).labels, [1, 1, 0])
    np.testing.assert_array_equal(read_table(path, "label", None, ("01", "1", "1.0")).labels, [2, 1, 0])
    with pytest.raises(ValueError, match="got '01'"):
        read_table(path, "label", None, ("1", "2"))
