"""What the figures share."""

import plotly.graph_objects as go
import pytest

from analysis.plots import MOST_TICKS, log_ticks, log_x


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (3.0, 40.0, [2, 5, 10, 20, 50]),
        (7.0, 7.0, [5, 10]),
        (0.03, 3.0, [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]),
        (1e-5, 1e-2, [1e-5, 1e-4, 1e-3, 1e-2]),
        (1.0, 1e12, [1, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12]),
    ],
)
def test_ticks_of_a_log_axis_are_round_and_few(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)
    assert len(ticks) <= MOST_TICKS


def test_a_log_axis_names_its_ticks_whole():
    figure = go.Figure()
    figure.add_scatter(x=[0.0005, 0.0, 0.002])
    figure.add_scatter(x=[0.01])
    log_x(figure)
    assert figure.layout.xaxis.ticktext == ("0.0005", "0.001", "0.002", "0.005", "0.01")
    large = go.Figure(go.Scatter(x=[90_000, 400_000]))
    log_x(large)
    assert large.layout.xaxis.ticktext == ("50,000", "100,000", "200,000", "500,000")
    log_x(go.Figure())  # nothing is drawn
