/*
 * Reads the frames of frames.h from a stream that may be cut anywhere.
 *
 * Owns nothing; a parser belongs to one thread at a time. Lengths come from outside and are checked; payload bytes are
 * handed on as they arrive, so that no frame is ever held whole.
 */
#ifndef SBX_FRAME_PARSER_H
#define SBX_FRAME_PARSER_H

#include <stddef.h>
#include <stdint.h>

#include "frames.h"

enum { FRAME_STDOUT = 1, FRAME_STDERR = 2 };

/* Times are microseconds since 1970, as the sandbox tells them. Borrowed bytes. */
struct frame_events {
	void (*started)(void *arg, uint64_t time, uint32_t pid);
	void (*data)(void *arg, uint64_t time, unsigned stream, const void *p, size_t n);
	void (*gap)(void *arg, unsigned stream, uint64_t n);
	void (*exited)(
		void *arg, uint64_t time, int code, unsigned flags); /* nothing is read after it */
};

struct frame_parser {
	unsigned char head[FRAME_HEADER];
	size_t have; /* bytes of head */
	unsigned char body[16];
	size_t body_have;
	uint32_t left; /* bytes of the payload still to come */
	uint8_t type, stream;
	uint64_t time;
	int ended; /* the exit frame was seen */
};

void frame_parser_init(struct frame_parser *p);
/* 0, or -EPROTO: these are no frames. Bytes after the exit frame are ignored. */
int frame_parser_feed(
	struct frame_parser *p, const void *bytes, size_t n, const struct frame_events *ev, void *arg);

#endif
