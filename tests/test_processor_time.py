"""The order in which workers take files."""

from tests.processor_time import costliest_first


def test_files_that_took_long_go_first_and_new_ones_by_their_number_of_tests():
    files = ["a.py"] * 3 + ["new.py"] * 40 + ["b.py"] + ["c.py"] * 5
    places = costliest_first(files, {"a.py": 2.5, "b.py": 9.0, "c.py": 0.1, "gone.py": 99.0})
    assert sorted(places, key=places.get) == ["b.py", "new.py", "a.py", "c.py"]
