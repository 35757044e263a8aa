/*
 * Frames: how sandboxd tells the output of a command, byte for byte and so that a
 * broken stream can be taken up again. Shared by both ends; a format only.
 *
 *   POST /api/sandboxfs/commands            body: u32 length of JSON, JSON, then all of stdin.
 *        {"id","command","cwd"?,"env"?:{},"timeoutMs"?,"list"?:false,"sessionId"?,"beside"?,"terminal"?:{"cols","rows"}}
 *        id: [A-Za-z0-9._-]{1,128}, chosen by the client
 *        sessionId: it runs in the shell of that session (made if there is none), in its turn; until then its pid is 0. With `beside` (the
 *        default if `list` or `terminal`): as a process of its own, where the session is and with its variables. It ends with the session.
 *        -> 200 application/octet-stream: frames from the first byte to EXIT. A POST with an id that is known attaches to it
 *        from its first byte: repeating is harmless. `list` true: it appears in process/list.
 *   POST /api/sandboxfs/commands/ID/attach?from=N     frames from output byte N on (both streams, in order of arrival)
 *   POST /api/sandboxfs/commands/ID/signal  {"signal":"TERM"} (name or number) to all its processes; {"cancel":true}: TERM, KILL after 2 s
 *        -> {"success":true}; ended already: 404 COMMAND_NOT_FOUND; unknown: 404 PROCESS_NOT_FOUND.
 *        A cancel for an id that is not known yet is remembered for 60 s: a start that comes later with it is refused (409 OPERATION_INTERRUPTED).
 *   GET  /api/sandboxfs/commands/ID         -> {"success":true,"command":{"id","pid","command","cwd","env":{},"timeoutMs","status","startTime","endTime"?,
 *        "exitCode"?,"timedOut","sizes":{"both","stdout","stderr"},"first":{"both","stdout","stderr"}}}
 *   GET  /api/sandboxfs/commands/ID/output?view=both|stdout|stderr&offset=N&length=N   -> bytes; headers X-Size, X-First. Before X-First: 416
 *   POST /api/sandboxfs/commands/ID/input?at=N   body: bytes typed at its terminal; at: how many were typed before (a repeated request types
 *        nothing twice) -> {"success":true,"typed":M} when all were taken; 404 COMMAND_NOT_FOUND: it has ended
 *   POST /api/sandboxfs/commands/ID/resize  {"cols","rows"} of its terminal -> {"success":true}
 *   DELETE /api/sandboxfs/commands/ID       forgets the record of an ended one; 409 RESOURCE_BUSY while it runs
 *
 * A frame is a header of 16 bytes, little-endian: u8 type, u8 stream (1 stdout, 2 stderr), u16 0, u32 length of the
 * payload, u64 time (microseconds since 1970; of STARTED and EXIT the command's own), then the payload.
 */
#ifndef SBX_FRAMES_H
#define SBX_FRAMES_H

enum { FRAME_HEADER = 16, FRAME_MAX = 1 << 20 /* payload */, FRAME_HEARTBEAT_MS = 5000 };

enum frame_type {
	FRAME_STARTED = 1, /* u32 pid. First frame of every stream, also of an attached one */
	FRAME_DATA = 2,    /* bytes of `stream` */
	FRAME_EXIT =
		3, /* i32 exit code (128+N for signal N; 124 on time-out), u32 FRAME_EXIT_*. Last frame */
	FRAME_HEARTBEAT = 4, /* after 5 s without another frame */
	FRAME_GAP = 5        /* u64: so many bytes at this place are no longer kept */
};

enum {
	FRAME_EXIT_TIMED_OUT = 1,
	FRAME_EXIT_CANCELLED = 2, /* ended by signal or cancel of this route */
	FRAME_EXIT_LOST = 4,      /* its exit code is not known */
	FRAME_EXIT_SESSION =
		8 /* the shell of its session was killed under it: the session's state is lost */
};

#endif
