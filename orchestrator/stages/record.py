"""The ledger of identities: provisional at once, revised by explicit updates, never silently."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.imaging import stacked
from orchestrator.settings import IdentifySettings, NumberSettings
from orchestrator.stages.beliefs import Beliefs, unnumbered
from orchestrator.stages.evidence import Person
from orchestrator.stages.identify import Embedding, Kits
from orchestrator.stages.returning import returned
from orchestrator.stages.teams import NO_TEAM, TeamClusters
from orchestrator.types.frames import FrameHeader
from orchestrator.types.people import Identity, NumberReading, Shirt
from orchestrator.types.results import IdentityUpdate, Player
from orchestrator.types.streams import StreamConfig
from orchestrator.types.tracks import Track, Tracks

_RETURN_S = 2.0
"""After a longer absence looks and place prove nothing: a side dresses alike. The number does."""
_LEAST_SURE = 0.85
"""One of two tracks at least must be so sure of its number to be the other because of it, else the
newer keeps it to itself. Of nine pairs in sixteen clips one were two people: 0.80, the others 0.87
and more."""
_MOST_PEOPLE = 512
"""People remembered; the longest lost are forgotten first."""
_MOST_JUDGED = 128
"""People whose looks tell the sides apart, the last seen: enough for minutes. With all of a match's
people telling would take ten times as long."""
_MOST_REPEATED = 256
"""Frames that a resumed stream can send again: as many as a client may have under way."""
_REPORTED = ("role", "team", "jersey_number", "player_id")


@dataclass(frozen=True, slots=True)
class Observations:
    """What the models said of one frame's people, by object id."""

    embeddings: dict[int, Embedding]
    readings: dict[int, NumberReading]


class IdentityLedger:
    """Who is who in one stream."""

    def __init__(
        self, config: StreamConfig, identify: IdentifySettings, number: NumberSettings
    ) -> None:
        self._frame_rate = config.frame_rate
        self._identify = identify
        are_described = bool(config.team_a.kit_description or config.team_b.kit_description)
        self._teams = TeamClusters(margin=identify.team_margin, awaits_kits=are_described)
        self._beliefs = Beliefs(config, number, self._teams)
        self._fit_every = max(1, round(identify.interval_s * config.frame_rate))
        self._next_fit = 0
        """Number of the frame from which on the sides are learnt anew."""
        self._people: dict[int, Person] = {}
        self._by_object: dict[int, Person] = {}
        self._next_track_id = 1
        self._recorded: deque[int] = deque(maxlen=_MOST_REPEATED)
        """Indices of the last frames."""
        self._cut_count = 0
        """Number of the frame of the last camera cut."""

    @property
    def awaits_kits(self) -> bool:
        """Whether no side is named, because kits are described and not learnt yet."""
        return self._teams.awaits_kits

    def learn_kits(self, kits: Kits) -> None:
        """Name the sides by the descriptions of their kits."""
        self._teams.learn_kits(kits)

    def record(
        self, header: FrameHeader, frame_count: int, tracks: Tracks, observations: Observations
    ) -> tuple[tuple[Player, ...], list[IdentityUpdate]]:
        """Enter one frame.

        Args:
            header: The frame's header.
            frame_count: Number of the frame within the stream, lost ones counted.
            tracks: Who is seen and who was given up.
            observations: New evidence.

        Returns:
            The players by ascending track id, and the revisions of what was said before.
        """
        if tracks.is_cut:
            self._cut_count = frame_count
        for object_id in tracks.ended:
            if object_id in self._by_object:
                self._by_object.pop(object_id).is_lost = True
        back = self._returned(tracks, frame_count, observations)
        back |= self._recognised(tracks, frame_count, observations, back)
        for track in tracks.seen:
            self._enter(track, header.frame_index, frame_count, observations, back)
        self._count(header.frame_index, tracks)
        if frame_count >= self._next_fit:
            self._next_fit = (frame_count // self._fit_every + 1) * self._fit_every
            self._settle_long_lost(frame_count)
            self._beliefs.fit_teams(self.people)
        updates = self._revise(tracks, header.frame_index, frame_count)
        self._forget_longest_lost()
        players = [
            Player(person.track_id, track, person.identity)
            for track in tracks.seen
            for person in (self._by_object[track.object_id],)
        ]
        return tuple(sorted(players, key=lambda player: player.track_id)), updates

    @property
    def people(self) -> tuple[Person, ...]:
        """Everybody remembered, by ascending track id."""
        return tuple(self._people[key] for key in sorted(self._people))

    def _enter(
        self,
        track: Track,
        frame_index: int,
        frame_count: int,
        observations: Observations,
        back: dict[int, Person],
    ) -> None:
        embedding = observations.embeddings.get(track.object_id)
        person = self._by_object.get(track.object_id) or back.get(track.object_id)
        if person is None:
            person = Person(self._next_track_id, track.object_id, frame_index, track.xyxy)
            self._people[person.track_id] = person
            self._next_track_id += 1
        self._by_object[track.object_id] = person
        person.see(track, frame_index, frame_count)
        if embedding is not None:
            person.embed(embedding)
        if track.object_id in observations.readings:
            person.read(observations.readings[track.object_id])

    def _count(self, frame_index: int, tracks: Tracks) -> None:
        """Count a frame for everybody seen; one that a resumed stream sent again counts once."""
        if frame_index not in self._recorded:
            self._recorded.append(frame_index)
            for track in tracks.seen:
                self._by_object[track.object_id].frame_count += 1

    def _returned(
        self, tracks: Tracks, frame_count: int, observations: Observations
    ) -> dict[int, Person]:
        """Carry everybody along with the camera, and find who of those out of sight is back."""
        away = [
            (person, (frame_count - person.last_count) / self._frame_rate)
            for person in self._people.values()
            if person.last_count >= self._cut_count
        ]
        longest_s = min(_RETURN_S, self._identify.reidentify_s)
        recently = [(person, away_s) for person, away_s in away if away_s <= longest_s]
        carried = tracks.shift.moved(stacked([person.xyxy for person, _ in recently]))
        for (person, _), box in zip(recently, carried, strict=True):
            person.xyxy = box
        in_sight = {track.object_id for track in tracks.seen}
        recently = [one for one in recently if one[0].object_id not in in_sight]
        newcomers = [track for track in tracks.seen if track.object_id not in self._by_object]
        least = self._identify.reidentify_similarity
        back = returned(newcomers, observations.embeddings, recently, least)
        for person in back.values():  # whose own track may still be awaited elsewhere, in vain
            self._by_object.pop(person.object_id, None)
        return back

    def _recognised(
        self,
        tracks: Tracks,
        frame_count: int,
        observations: Observations,
        back: dict[int, Person],
    ) -> dict[int, Person]:
        """Find the lost among the new whose number is read at first sight, as after a cut."""
        in_sight = [self._by_object.get(track.object_id) for track in tracks.seen]
        if all(in_sight):
            return {}
        taken = {who.identity.shirt for who in (*in_sight, *back.values()) if who is not None}
        lost = {key: people for key, people in self._lost(frame_count).items() if key not in taken}
        found: dict[int, Person] = {}
        for track in tracks.seen:
            if track.object_id in self._by_object or track.object_id in back:
                continue
            shirt = self._first_sight(track.object_id, observations)
            if shirt in lost:  # whoever else shows it is not the same person
                found[track.object_id] = lost.pop(shirt)[0]
        return found

    def _first_sight(self, object_id: int, observations: Observations) -> Shirt | None:
        """Return the side and number of somebody new, if one look tells both."""
        looks = observations.embeddings.get(object_id)
        reading = observations.readings.get(object_id)
        if looks is None or reading is None or reading.sure_number is None:
            return None
        team = self._teams.belief(looks, NO_TEAM).team
        return None if team is None else (team, reading.sure_number)

    def _lost(self, frame_count: int) -> dict[Shirt, list[Person]]:
        """Return who may return and is known by side and number, by ascending track id."""
        lost = defaultdict[Shirt, list[Person]](list)
        oldest = self._oldest(frame_count)
        for person in self._people.values():
            if person.is_lost and person.last_count >= oldest:
                shirt = person.identity.shirt
                if shirt is not None:
                    lost[shirt].append(person)
        return lost

    def _oldest(self, frame_count: int) -> float:
        """Return the number of the frame in which who may still return was seen at the earliest."""
        return frame_count - self._identify.reidentify_s * self._frame_rate

    def _settle_long_lost(self, frame_count: int) -> None:
        """Keep of those who were lost longest only what the stream's summary says of them."""
        oldest = self._oldest(frame_count)
        last_seen_last = sorted(self._people.values(), key=lambda person: person.last_count)
        for person in last_seen_last[:-_MOST_JUDGED]:
            if person.is_lost and person.last_count < oldest:
                person.settle()

    def _revise(self, tracks: Tracks, frame_index: int, frame_count: int) -> list[IdentityUpdate]:
        """Settle what is believed of everybody seen, and report every change."""
        seen = [self._by_object[track.object_id] for track in tracks.seen]
        beliefs = self._beliefs.judge(seen)
        lost = self._lost(frame_count)
        updates = []
        for person in sorted(seen, key=lambda p: p.track_id):
            belief = beliefs[person.track_id]
            earlier = _earlier_self(person, belief, lost)
            if earlier is not None and not _are_sure(belief, earlier.identity):
                belief, earlier = unnumbered(belief), None  # one of the two is misread
            changed = tuple(
                name
                for name in _REPORTED
                if getattr(belief, name) != getattr(person.identity, name)
            )
            person.identity = belief
            if earlier is not None:
                self._merge(person, into=earlier)
            if changed or earlier is not None:
                merged = earlier.track_id if earlier else None
                updates.append(
                    IdentityUpdate(person.track_id, frame_index, belief, changed, merged)
                )
        return updates

    def _merge(self, person: Person, *, into: Person) -> None:
        into.absorb(person)
        into.identity = person.identity
        self._by_object[person.object_id] = into
        del self._people[person.track_id]

    def _forget_longest_lost(self) -> None:
        if len(self._people) <= _MOST_PEOPLE:
            return
        lost = sorted(
            (person for person in self._people.values() if person.is_lost),
            key=lambda person: person.last_count,
        )
        for person in lost[: len(self._people) - _MOST_PEOPLE]:
            del self._people[person.track_id]


def _earlier_self(
    person: Person, belief: Identity, lost: Mapping[Shirt, Sequence[Person]]
) -> Person | None:
    """Find a lost person of the same side and number who was gone before this one came."""
    if belief.shirt is None:
        return None
    for earlier in lost.get(belief.shirt, ()):
        if earlier.is_lost and earlier.last_frame < person.first_frame:
            return earlier
    return None


def _are_sure(one: Identity, other: Identity) -> bool:
    """Whether two who say one number can be taken for one person by it."""
    return max(one.jersey_number_confidence, other.jersey_number_confidence) >= _LEAST_SURE
