import itertools

import numpy as np
import pytest

from tests.vocodata.bodies import body
from vocodata.alignment import TOLERANCE_MM, TURNS, _best, align
from vocodata.foreground import crop
from vocodata.geometry import Box, Size, Spacing, Volume
from vocodata.landmarks import Landmarks, find_landmarks, pack, unpack
from vocodata.resampling import resample
from vocodata.similarity import candidates, find_matches, least_evidence
from vocodata.words import MOST_WORDS, NO_WORD, _words, points_of, words_of


def spaced(volume):
    return resample(volume, Spacing(3, 3, 3))


def mirrored(volume):
    return Volume(volume.data_XYZ[::-1, :, ::-1], volume.affine)


def swapped(volume):
    x, y, z = volume.spacing_mm
    return Volume(volume.data_XYZ.transpose(2, 0, 1), np.diag([z, x, y, 1.0]))


def cut(volume):
    size = Size(*(int(n * 0.8) for n in volume.shape_XYZ))
    return crop(volume, Box(Size(9, 2, 5), size))


def clipped(volume):
    return Volume(np.clip(volume.data_XYZ, -175, 250), volume.affine)


def lossy(volume):
    noise = np.random.default_rng(9).normal(0, 6, volume.data_XYZ.shape)
    return Volume((np.rint((volume.data_XYZ + noise) / 8) * 8).astype(np.int16), volume.affine)


def everything(volume):
    return lossy(clipped(swapped(mirrored(spaced(cut(volume))))))


@pytest.fixture(scope="module")
def strangers():
    return [find_landmarks(body(seed)) for seed in range(100, 108)]


@pytest.mark.parametrize("edit", [spaced, mirrored, swapped, cut, clipped, lossy, everything])
def test_an_edited_copy_is_found_among_strangers(edit, strangers):
    scans = [*strangers, find_landmarks(body(7)), find_landmarks(edit(body(7)))]
    assert [match[:2] for match in find_matches(scans)] == [(8, 9)]


def test_landmarks_survive_being_packed_and_are_few(strangers):
    for scan in strangers:
        again = unpack(pack(scan))
        assert np.allclose(again.place_N3, scan.place_N3, atol=0.051)
        assert 30 < len(scan.contrast_N) <= 96


@pytest.mark.parametrize("turn", [0, 5, 17, 33, 47])
def test_an_alignment_finds_the_turn_and_all_landmarks(turn, strangers):
    one = strangers[0]
    place = one.place_N3 @ TURNS[turn].T + np.float32([4, -70, 300])
    found = align(one, one._replace(place_N3=np.ascontiguousarray(place)))
    assert found.turn == turn
    assert found.matched == found.possible == len(one.contrast_N)


def test_equal_landmarks_speak_for_one_body_and_displaced_ones_for_two(strangers):
    one, rng = strangers[2], np.random.default_rng(4)
    evidence = []
    for far_mm in (0.5, 2.5, 15):
        moved_N3 = one.place_N3 + rng.uniform(-far_mm, far_mm, one.place_N3.shape)
        evidence.append(align(one, one._replace(place_N3=moved_N3.astype(np.float32))).evidence)
    assert evidence[0] > evidence[1] > least_evidence(2) > evidence[2]


def test_other_brightness_at_the_same_places_is_less_evidence(strangers):
    one, rng = strangers[3], np.random.default_rng(5)
    noise = rng.uniform(-0.1, 0.1, one.level_N.size).astype(np.float32)
    same, other = (
        align(one, each).evidence for each in (one, one._replace(level_N=one.level_N + noise))
    )
    assert 0 < other < 0.8 * same


def agreeing(shift, turned_N3, place_M3):
    """Landmarks that a shift brings onto others, each counted once; they are far apart here."""
    way_NM3 = place_M3[None] - turned_N3[:, None] - shift
    return int((np.abs(way_NM3).max(2) <= TOLERANCE_MM).sum())


@pytest.mark.parametrize("seed", range(4))
def test_no_turn_and_shift_bring_more_landmarks_together_than_the_best(seed):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3) * 40.0
    one, other = (
        np.float32(rng.permutation(grid)[:14] + rng.uniform(-6, 6, (14, 3))) for _ in range(2)
    )
    turned_TN3 = np.ascontiguousarray(np.einsum("tij,nj->tni", TURNS, one))
    first, second = (np.int32(part.ravel()) for part in np.indices((14, 14)))
    turn, shift = _best(turned_TN3, first, other, second)
    most = max(
        agreeing(other[j] - turned_N3[i], turned_N3, other)
        for turned_N3 in turned_TN3
        for i, j in zip(first, second, strict=True)
    )
    assert agreeing(shift, turned_TN3[turn], other) == most > 2


def test_strangers_give_no_evidence(strangers):
    pairs = itertools.combinations(strangers, 2)
    assert max(align(one, other).evidence for one, other in pairs) < least_evidence(2) / 2


def test_among_more_scans_more_evidence_is_asked_for(strangers):
    one, empty = strangers[0], Landmarks(*(part[:0] for part in strangers[0]))
    parts = (Landmarks(*(part[:n] for part in one)) for n in range(3, 30))
    part = next(p for p in parts if align(one, p).evidence > least_evidence(2))
    many = [empty] * 3_000
    assert align(one, part).evidence < least_evidence(len(many) + 2)
    assert [match[:2] for match in find_matches([one, part])] == [(0, 1)]
    assert find_matches([one, part, *many]) == []


def test_words_do_not_change_by_a_turn(strangers):
    one = strangers[1]
    turned = one._replace(place_N3=np.ascontiguousarray(one.place_N3 @ TURNS[29].T))
    words = words_of(points_of([one, turned])).words_SW
    assert np.isin(words[0], words[1]).mean() > 0.98


@pytest.mark.parametrize("shape", [(4, 4, 30), (1, 40, 40), (30, 30, 30)])
def test_a_scan_without_landmarks_is_like_no_other(shape, strangers):
    air = find_landmarks(Volume(np.full(shape, -1000, np.int16), np.diag([9, 9, 9, 1.0])))
    assert air.contrast_N.size == 0
    assert find_matches([air, air, strangers[0]]) == []
    assert align(air, strangers[0]).evidence == 0


def test_slices_thicker_than_a_cell_are_read():
    thick = resample(body(8), Spacing(4, 4, 10))
    found = align(find_landmarks(body(8)), find_landmarks(thick))
    assert found.evidence > least_evidence(2)


def test_one_scan_and_none_have_no_partner():
    assert candidates([]).shape == candidates([Landmarks(*map(np.empty, [(0, 3), 0, 0]))]).shape


def test_the_number_of_threads_changes_nothing(strangers, monkeypatch):
    scans = [*strangers, find_landmarks(body(7)), find_landmarks(everything(body(7)))] * 6
    monkeypatch.setattr("vocodata.similarity._BLOCK_SCANS", 10)
    one, three = (candidates(scans, threads=threads) for threads in (1, 3))
    assert len(one) > 10 * 6 * 5 // 2 - 1
    assert np.array_equal(one, three)


def test_progress_ends_where_all_pairs_are_done(strangers, monkeypatch):
    monkeypatch.setattr("vocodata.similarity._BLOCK_PAIRS", 4)
    told = []
    find_matches([strangers[0]] * 4, on_progress=lambda *all_of_it: told.append(all_of_it))
    assert told == [("compare", 0, 4), ("compare", 4, 4), ("align", 4, 6), ("align", 6, 6)]


def test_words_are_the_smallest_of_all_pairs_each_once():
    rng = np.random.default_rng(3)
    for n in (3, 30, 96):
        place = rng.uniform(0, 300, (n, 3)).astype(np.float32)
        level = np.full(n, 0.5, np.float32) if n == 30 else rng.random(n).astype(np.float32)
        scan = Landmarks(place, rng.choice(np.float32([-0.1, 0.1]), n), level)
        points = points_of([scan])
        found, ends = _words(points.place_N3, points.kind_N)
        wanted, where = np.unique(found, return_index=True)
        words = words_of(points)
        count = min(MOST_WORDS, wanted.size)
        assert np.array_equal(words.words_SW[0, :count], wanted[:count])
        assert np.array_equal(words.ends_SW2[0, :count], ends[where[:count]])
        assert (words.words_SW[0, count:] == NO_WORD).all()
