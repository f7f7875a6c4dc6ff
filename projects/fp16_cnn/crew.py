"""Threads that share a kernel's tiles and stay in machine code between layers, so that a layer finds them awake.

Waking a sleeping thread, or handing over Python's lock, takes as long as a small layer. A worker therefore looks for
its next job by itself; when it has found none for about 0.2 ms, it sleeps until a job wakes it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Sequence
from functools import cache

from projects.fp16_cnn.compiler import compile_function

LOOKS = 10_000  # for the next job before sleeping: about 0.2 ms
PATIENT = 5_000  # looks before the core is offered to another thread, which may keep it for milliseconds
ARGUMENTS = 8  # of a job, 64 bits each: what a kernel does not take is ignored
WORD = 8
LINE = 8  # words of a cache line: a worker's mailbox holds ticket, done and job, a line each
PAUSE = "call void @llvm.x86.sse2.pause()" if platform.machine() in ("x86_64", "AMD64") else ""

_LOADS = "\n".join(
    f"  %p{i} = getelementptr i64, ptr %job, i64 {i + 1}\n  %a{i} = load i64, ptr %p{i}"
    for i in range(ARGUMENTS)
)
CODE = f"""
declare void @llvm.x86.sse2.pause()
declare i32 @sched_yield()

; return when *flag >= ticket, or after so many looks
define internal void @wait(ptr %flag, i64 %ticket, i64 %looks) {{
entry:
  br label %look
look:
  %i = phi i64 [0, %entry], [%more, %again]
  %seen = load atomic i64, ptr %flag acquire, align 8
  %there = icmp sge i64 %seen, %ticket
  br i1 %there, label %done, label %miss
miss:
  {PAUSE}
  %more = add i64 %i, 1
  %long = icmp sge i64 %more, %looks
  br i1 %long, label %done, label %turn
turn:
  %rest = urem i64 %more, {PATIENT}
  %offer = icmp eq i64 %rest, 0
  br i1 %offer, label %yield, label %again
yield:
  %ignored = call i32 @sched_yield()
  br label %again
again:
  br label %look
done:
  ret void
}}

; a job: the function's address, then its arguments
define internal void @do(ptr %job) {{
  %function = load ptr, ptr %job
{_LOADS}
  call void %function({", ".join(f"i64 %a{i}" for i in range(ARGUMENTS))})
  ret void
}}

; a worker: jobs from its mailbox in the order of their tickets, until none has come for long
define void @serve(ptr %mailbox, i64 %first) {{
entry:
  %done = getelementptr i64, ptr %mailbox, i64 {LINE}
  %slot = getelementptr i64, ptr %mailbox, i64 {2 * LINE}
  br label %turn
turn:
  %ticket = phi i64 [%first, %entry], [%next, %work]
  call void @wait(ptr %mailbox, i64 %ticket, i64 {LOOKS})
  %seen = load atomic i64, ptr %mailbox acquire, align 8
  %there = icmp sge i64 %seen, %ticket
  br i1 %there, label %work, label %idle
work:
  %job = load ptr, ptr %slot
  call void @do(ptr %job)
  store atomic i64 %seen, ptr %done release, align 8
  %next = add i64 %seen, 1
  br label %turn
idle:
  ret void
}}

; the caller: its own job, then wait for `count` workers
define void @lead(ptr %job, ptr %mailboxes, i64 %count, i64 %ticket) {{
entry:
  call void @do(ptr %job)
  br label %turn
turn:
  %i = phi i64 [0, %entry], [%next, %turn]
  %line = mul i64 %i, {3 * LINE}
  %shifted = add i64 %line, {LINE}
  %flag = getelementptr i64, ptr %mailboxes, i64 %shifted
  call void @wait(ptr %flag, i64 %ticket, i64 {1 << 62})
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %turn, label %end
end:
  ret void
}}
"""


class Jobs:
    """The parts of one piece of work: for each thread a function's address and its arguments."""

    def __init__(self, parts: Sequence[tuple[int, Sequence[int]]]) -> None:
        self.count = len(parts)
        words = 1 + ARGUMENTS
        self._words = (ctypes.c_int64 * (words * self.count))()
        for part, (function, arguments) in enumerate(parts):
            self._words[part * words : part * words + 1 + len(arguments)] = [function, *arguments]
        start = ctypes.addressof(self._words)
        self.addresses = [start + part * words * WORD for part in range(self.count)]


class Crew:
    """`workers` threads beside the caller's."""

    def __init__(self, workers: int) -> None:
        self._serve = compile_function(CODE, "serve", 1, 1).call
        self._lead = compile_function(CODE, "lead", 2, 2).call
        self._memory = (ctypes.c_int64 * (3 * LINE * workers + LINE))()
        address = ctypes.addressof(self._memory)
        self._first = -(address // WORD) % LINE  # words to the first whole cache line
        self._mailboxes = address + self._first * WORD
        self._ticket = 0
        self._asleep = [False] * workers
        self._wake = [threading.Semaphore(0) for _ in range(workers)]
        self._busy = threading.Lock()
        # With as many threads as cores each keeps to one: two on one core would wait for each other.
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._cores = cores if len(cores) == workers + 1 else []
        for worker in range(workers):
            threading.Thread(target=self._work, args=(worker,), name="kernel", daemon=True).start()

    def run(self, jobs: Jobs) -> None:
        """Do all parts at the same time, the first in the caller's thread; return when all are done."""
        with self._busy:
            self._ticket += 1
            for worker in range(jobs.count - 1):
                mailbox = self._first + 3 * LINE * worker
                self._memory[mailbox + 2 * LINE] = jobs.addresses[worker + 1]
                self._memory[mailbox] = self._ticket
                if self._asleep[worker]:
                    self._asleep[worker] = False
                    self._wake[worker].release()
            if self._cores:
                os.sched_setaffinity(0, self._cores[:1])
            self._lead(jobs.addresses[0], self._mailboxes, jobs.count - 1, self._ticket)
            if self._cores:  # others' threads, started from here, inherit it
                os.sched_setaffinity(0, self._cores)

    def _work(self, worker: int) -> None:
        if self._cores:
            os.sched_setaffinity(0, {self._cores[worker + 1]})
        mailbox = self._first + 3 * LINE * worker
        while True:
            ticket = self._memory[mailbox + LINE] + 1
            self._serve(self._mailboxes + 3 * LINE * WORD * worker, ticket)
            self._asleep[worker] = True
            if self._memory[mailbox] == self._memory[mailbox + LINE]:  # nothing was posted in between
                self._wake[worker].acquire()
            self._asleep[worker] = False


@cache
def crew(threads: int) -> Crew:
    """The crew of `threads` threads in all, the caller's counted; it is made once."""
    return Crew(threads - 1)
