from ptychoflow.streaming.state.series import Series, SeriesCursor


def filled(values: list[float], capacity: int = 4) -> Series:
    series = Series(["loss"], capacity=capacity)
    for time_s, value in enumerate(values):
        series.append(float(time_s), {"loss": value})
    return series


def test_a_full_series_averages_neighbours_in_time_and_value():
    series = filled([1.0, 3.0, 5.0, 9.0])
    assert series.since(SeriesCursor()).columns == {"time_s": [0.5, 2.5], "loss": [2.0, 7.0]}


def test_the_point_still_being_averaged_is_shown():
    series = filled([1.0, 3.0, 5.0, 9.0, 4.0])
    assert series.since(SeriesCursor()).columns == {"time_s": [0.5, 2.5, 4.0], "loss": [2.0, 7.0, 4.0]}


def test_size_stays_bounded_and_the_mean_stays_exact():
    values = [float(n % 7) for n in range(4096)]
    columns = filled(values, capacity=16).since(SeriesCursor()).columns
    assert len(columns["loss"]) <= 16
    assert sum(columns["loss"]) / len(columns["loss"]) == sum(values) / len(values)


def test_patches_rebuild_the_series_exactly_across_merges():
    series = Series(["loss"], capacity=8)
    copy: dict[str, list[float]] = {"time_s": [], "loss": []}
    cursor = SeriesCursor()
    for n in range(100):
        series.append(float(n), {"loss": float(n * n)})
        if n % 3 == 0:
            patch = series.since(cursor)
            cursor = series.cursor()
            copy = {name: copy[name][: patch.start] + patch.columns[name] for name in copy}
            assert copy == series.since(SeriesCursor()).columns


def test_a_patch_carries_only_what_is_new():
    series = filled([1.0, 2.0], capacity=100)
    cursor = series.cursor()
    series.append(2.0, {"loss": 8.0})
    patch = series.since(cursor)
    assert (patch.start, patch.columns) == (2, {"time_s": [2.0], "loss": [8.0]})
