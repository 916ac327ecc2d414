"""Messages from threads to coroutines."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from mongover.web.feed import Feed, Message, Wakers, frame
from mongover.web.service import Shared


async def collect(feed: Feed, number: int, count: int) -> list[Message | None]:
    found: list[Message | None] = []
    async for message in feed.follow(number, heartbeat=30):
        found.append(message)
        if len(found) == count:
            break
    return found


def test_several_followers_get_every_message_of_several_threads_in_one_order() -> None:
    feed = Feed()

    def tell(name: str) -> None:
        for number in range(100):
            feed.publish(name, {"number": number})

    async def main() -> list[list[Message | None]]:
        followers = [asyncio.create_task(collect(feed, 0, 300)) for _ in range(5)]
        while feed.followers < 5:  # noqa: ASYNC110 - nothing tells of a new follower
            await asyncio.sleep(0)
        threads = [threading.Thread(target=tell, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        return list(await asyncio.gather(*followers))

    found = asyncio.run(main())
    assert [message.number for message in found[0] if message] == list(range(1, 301))
    assert all(one == found[0] for one in found)
    assert feed.followers == 0


def test_a_follower_that_comes_late_gets_what_is_kept_and_loses_the_oldest() -> None:
    feed = Feed(size=3)
    for number in range(10):
        feed.publish("x", {"number": number})
    found = asyncio.run(collect(feed, 0, 3))
    assert [message.number for message in found if message] == [8, 9, 10]


def test_a_quiet_while_gives_a_sign_of_life_and_a_closed_feed_ends() -> None:
    feed = Feed()

    async def main() -> list[Message | None]:
        found = []
        async for message in feed.follow(0, heartbeat=0.01):
            found.append(message)
            feed.close()
        return found

    assert asyncio.run(main()) == [None]
    assert feed.closed


def test_waking_a_loop_that_has_ended_harms_nobody() -> None:
    wakers = Wakers()
    loop = asyncio.new_event_loop()

    listening = wakers.listening()

    async def listen() -> Any:
        return listening.__enter__()

    loop.run_until_complete(listen())
    loop.close()
    wakers.wake()
    assert len(wakers) == 1
    listening.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("identifier", "place"),
    [
        (None, None),
        ("", None),
        ("7", None),
        ("other-1", None),
        ("{epoch}-x", None),
        ("{epoch}-", None),
        ("{epoch}-٣", None),
        ("{epoch}-1", 1),
        ("{epoch}-999999999999999999999999", 2),
    ],
)
def test_the_id_of_a_message_is_a_place_only_in_the_feed_that_it_came_from(
    identifier: str | None, place: int | None
) -> None:
    feed = Feed()
    feed.publish("x", {})
    feed.publish("x", {})
    given = None if identifier is None else identifier.format(epoch=feed.epoch)
    assert feed.place_of(given) == place


def test_a_frame_keeps_to_its_lines_whatever_the_message_says() -> None:
    message = Message(7, "Notice", {"message": "a\n\nevent: forged\r\ndata: x"}, "r1")
    text = frame("e", message)
    assert text.startswith("id: e-7\nevent: Notice\ndata: {")
    assert text.count("\n") == 4
    assert "\r" not in text
    assert frame("e", None) == ": alive\n\n"


def test_many_who_ask_at_once_share_two_reads_and_no_answer_is_older_than_its_question() -> None:
    reads = 0

    async def read() -> int:
        nonlocal reads
        reads += 1
        mine = reads
        await asyncio.sleep(0.01)
        return mine

    async def main() -> None:
        shared = Shared()
        first = asyncio.create_task(shared(read))
        while reads == 0:  # noqa: ASYNC110 - the read itself is what is counted
            await asyncio.sleep(0)
        later = [asyncio.create_task(shared(read)) for _ in range(50)]
        assert await first == 1
        assert set(await asyncio.gather(*later)) == {2}
        assert await shared(read) == 3

    asyncio.run(main())


def test_one_who_goes_away_does_not_end_the_read_of_the_others() -> None:
    async def read() -> str:
        await asyncio.sleep(0.02)
        return "found"

    async def main() -> str:
        shared = Shared()
        one, other = asyncio.create_task(shared(read)), asyncio.create_task(shared(read))
        await asyncio.sleep(0)
        one.cancel()
        return await other

    assert asyncio.run(main()) == "found"


def test_a_read_that_an_ended_loop_left_behind_does_not_hold_up_the_next_loop() -> None:
    shared = Shared()

    async def begin() -> None:
        async def never() -> None:
            await asyncio.sleep(60)

        task = asyncio.create_task(shared(never))
        await asyncio.sleep(0)
        shared._next = asyncio.ensure_future(never())
        task.cancel()

    async def read() -> str:
        return "found"

    asyncio.run(begin())
    shared._lock = asyncio.Lock()
    assert asyncio.run(shared(read)) == "found"
