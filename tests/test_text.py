from lognet.text import aligned


def test_columns_are_aligned_and_lines_end_with_their_text():
    rows = [["name", "kind", "n"], ["a", "linear", "10"], ["total", "", ""]]
    assert aligned(rows, left=2) == ["name   kind     n", "a      linear  10", "total"]
    assert aligned(rows, rule=True) == ["name     kind   n", "-" * 17, "a      linear  10", "total"]
    assert aligned([["", "b"]]) == ["  b"]
