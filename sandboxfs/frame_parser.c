/*
 * Reads frames: see frame_parser.h. A frame of a type that is not known is skipped, so that a newer server can say more.
 */
#include "frame_parser.h"

#include <errno.h>
#include <string.h>

#include "buf.h"

void frame_parser_init(struct frame_parser *p)
{
	memset(p, 0, sizeof(*p));
}

/* The least payload of each type that is read whole. */
static uint32_t frame_fixed_size(uint8_t type)
{
	switch (type) {
	case FRAME_STARTED:
		return 4;
	case FRAME_EXIT:
	case FRAME_GAP:
		return 8;
	default:
		return 0;
	}
}

static int frame_parser_head(struct frame_parser *p)
{
	struct reader r;

	reader_init(&r, p->head, FRAME_HEADER);
	p->type = reader_u8(&r);
	p->stream = reader_u8(&r);
	reader_u16(&r);
	p->left = reader_u32(&r);
	p->time = reader_u64(&r);
	p->body_have = 0;
	if (p->left > FRAME_MAX || p->left < frame_fixed_size(p->type))
		return -EPROTO;
	if (p->type == FRAME_DATA && p->stream != FRAME_STDOUT && p->stream != FRAME_STDERR)
		return -EPROTO;
	return 0;
}

static void frame_parser_done(struct frame_parser *p, const struct frame_events *ev, void *arg)
{
	struct reader r;

	reader_init(&r, p->body, p->body_have);
	p->have = 0;
	if (p->type == FRAME_STARTED) {
		ev->started(arg, p->time, reader_u32(&r));
	} else if (p->type == FRAME_GAP) {
		ev->gap(arg, p->stream == FRAME_STDERR ? FRAME_STDERR : FRAME_STDOUT, reader_u64(&r));
	} else if (p->type == FRAME_EXIT) {
		int code = (int)reader_u32(&r);
		p->ended = 1;
		ev->exited(arg, p->time, code, reader_u32(&r));
	}
}

int frame_parser_feed(
	struct frame_parser *p, const void *bytes, size_t n, const struct frame_events *ev, void *arg)
{
	const unsigned char *at = bytes;

	while (n > 0 && !p->ended) {
		size_t take;

		if (p->have < FRAME_HEADER) {
			take = FRAME_HEADER - p->have < n ? FRAME_HEADER - p->have : n;
			memcpy(p->head + p->have, at, take);
			p->have += take;
			at += take;
			n -= take;
			if (p->have < FRAME_HEADER)
				return 0;
			int err = frame_parser_head(p);
			if (err)
				return err;
		} else {
			take = p->left < n ? p->left : n;
			if (p->type == FRAME_DATA) {
				ev->data(arg, p->time, p->stream, at, take);
			} else if (p->body_have < sizeof(p->body)) {
				size_t room = sizeof(p->body) - p->body_have;
				size_t keep = take < room ? take : room;
				memcpy(p->body + p->body_have, at, keep);
				p->body_have += keep;
			}
			at += take;
			n -= take;
			p->left -= (uint32_t)take;
		}
		if (p->left == 0)
			frame_parser_done(p, ev, arg);
	}
	return 0;
}
