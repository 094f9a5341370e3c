import numpy as np
import pytest

from vocodata.alignment import TURNS
from vocodata.landmarks import Landmarks
from vocodata.similarity import _worth_aligning, candidates
from vocodata.votes import vote
from vocodata.word_index import AXIS_BITS, MAX_SCANS_OF_A_WORD, SCAN_SHIFT, UNIT_MM, index_of
from vocodata.words import NO_WORD, points_of, words_of


def scattered(seed, count=60, side_mm=250):
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, side_mm, (count, 3)).astype(np.float32)
    level = rng.random(count).astype(np.float32)
    return Landmarks(place, rng.choice(np.float32([-0.1, 0.1]), count), level)


def turned(scan, turn, shift_mm=(20, 300, 55)):
    place = scan.place_N3 @ TURNS[turn].T
    place += np.float32(shift_mm) - place.min(0)
    return scan._replace(place_N3=np.ascontiguousarray(place, np.float32))


def voted(scans):
    points = points_of(scans)
    words = words_of(points)
    return vote(0, len(scans), words, index_of(words, points), points).tolist()


@pytest.mark.parametrize("turn", range(48))
def test_a_scan_is_found_however_it_is_turned(turn):
    scans = [scattered(1), scattered(2), turned(scattered(1), turn)]
    ((one, other, agreeing),) = voted(scans)
    assert (one, other) == (0, 2)
    assert agreeing > 300


def test_the_part_two_scans_share_is_enough():
    one, other = scattered(3), scattered(4)
    for shared, is_found in ((14, True), (2, False)):
        parts = zip(one, turned(one, 21), other, strict=True)
        half = Landmarks(*(np.concatenate([b[:shared], c[shared:]]) for _, b, c in parts))
        assert ([pair[:2] for pair in voted([one, half])] == [[0, 1]]) == is_found


def test_shared_words_that_lie_anyhow_are_no_pair():
    rng = np.random.default_rng(5)
    ends = rng.uniform(20, 60, (40, 3)).astype(np.float32)

    def apart():
        first = rng.uniform(60, 3000, (40, 3)).astype(np.float32)
        level = np.full(80, 0.4, np.float32)
        place = np.concatenate([first, first + ends])
        return Landmarks(place, np.full(80, 0.1, np.float32), level)

    scans = [apart(), apart()]
    words = words_of(points_of(scans)).words_SW
    assert np.isin(words[0][words[0] != NO_WORD], words[1]).sum() >= 30
    assert voted(scans) == []


def test_entries_tell_the_scan_and_place_of_each_word():
    scans = [
        scattered(6),
        Landmarks(*map(np.empty, [(0, 3), 0, 0], [np.float32] * 3)),
        scattered(7),
    ]
    points = points_of(scans)
    words = words_of(points)
    index = index_of(words, points, threads=2)
    for scan in (0, 2):
        for w in np.flatnonzero(words.words_SW[scan] != NO_WORD)[::37]:
            bucket = index.bucket_SW[scan, w]
            entries = index.entry_E[index.starts[bucket] : index.ends[bucket]]
            entry = entries[entries >> SCAN_SHIFT == scan].item()
            a = scans[scan].place_N3[words.ends_SW2[scan, w, 0]]
            place = [entry >> AXIS_BITS * (2 - axis) & 2**AXIS_BITS - 1 for axis in range(3)]
            assert place == [int(mm / UNIT_MM) for mm in a]


def test_a_word_that_too_many_scans_have_has_no_vote(monkeypatch):
    assert MAX_SCANS_OF_A_WORD > 3
    scans = [scattered(8)] * 3
    assert len(voted(scans)) == 3
    monkeypatch.setattr("vocodata.word_index.MAX_SCANS_OF_A_WORD", 2)
    assert voted(scans) == []


def test_of_unsure_pairs_those_that_agree_most_are_aligned(monkeypatch):
    pairs = np.array([[0, n, agreeing] for n, agreeing in enumerate([3, 4, 5, 5, 8, 30], 1)])
    assert len(_worth_aligning(pairs)) == 6
    for most, kept in ((3, [2, 3, 4, 5, 6]), (2, [3, 4, 5, 6]), (1, [5, 6]), (0, [5, 6])):
        monkeypatch.setattr("vocodata.similarity.MAX_UNSURE", most)
        assert _worth_aligning(pairs)[:, 1].tolist() == kept


def test_more_words_are_kept_of_each_scan_where_there_are_few(monkeypatch):
    scans = [scattered(9, count=96, side_mm=120)] * 2
    assert words_of(points_of(scans)).words_SW.shape == (2, 2048)
    monkeypatch.setattr("vocodata.words.WORDS_OF_ALL", 2000)
    assert words_of(points_of(scans)).words_SW.shape == (2, 1000)
    monkeypatch.setattr("vocodata.words.WORDS_OF_ALL", 2)
    assert words_of(points_of(scans)).words_SW.shape == (2, 768)
    assert candidates(scans).tolist() == [[0, 1]]
