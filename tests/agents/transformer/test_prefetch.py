import pytest
from mtbench_agents.transformer.prefetch import prefetched


def test_prefetching_keeps_the_order_and_stays_one_ahead():
    made = []
    numbers = prefetched(lambda i: made.append(i) or i, range(5))
    assert next(numbers) == 0
    assert made in ([0], [0, 1]), "no more than the next one"
    assert list(numbers) == [1, 2, 3, 4]
    assert made == [0, 1, 2, 3, 4]
    assert list(prefetched(str, [])) == []


def test_prefetching_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        list(prefetched(lambda i: 1 // i, [1, 0]))
