/* links: contrib/common/buf.c sandboxfs/frame_parser.c */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "frame_parser.h"

struct seen {
	struct buf out, err;
	uint32_t pid;
	uint64_t gap, time;
	int code, exits;
	unsigned flags;
};

static void on_started(void *arg, uint64_t time, uint32_t pid)
{
	struct seen *s = arg;

	s->time = time;
	s->pid = pid;
}

static void on_data(void *arg, uint64_t time, unsigned stream, const void *p, size_t n)
{
	struct seen *s = arg;

	(void)time;
	buf_add(stream == FRAME_STDERR ? &s->err : &s->out, p, n);
}

static void on_gap(void *arg, unsigned stream, uint64_t n)
{
	(void)stream;
	((struct seen *)arg)->gap += n;
}

static void on_exited(void *arg, uint64_t time, int code, unsigned flags)
{
	struct seen *s = arg;

	(void)time;
	s->code = code;
	s->flags = flags;
	s->exits++;
}

static const struct frame_events events = {on_started, on_data, on_gap, on_exited};

static void put(struct buf *b, int type, int stream, const void *p, size_t n)
{
	buf_u8(b, (uint8_t)type);
	buf_u8(b, (uint8_t)stream);
	buf_u16(b, 0);
	buf_u32(b, (uint32_t)n);
	buf_u64(b, 123456789);
	buf_add(b, p, n);
}

static void make(struct buf *b)
{
	put(b, FRAME_STARTED, 0, "\x11\x22\0\0", 4);
	put(b, FRAME_DATA, FRAME_STDOUT, "one\0two", 7);
	put(b, FRAME_HEARTBEAT, 0, "", 0);
	put(b, FRAME_DATA, FRAME_STDERR, "bad", 3);
	put(b, 77, 9, "a frame of the future, longer than anything that is kept", 56);
	put(b, FRAME_GAP, FRAME_STDOUT, "\x05\0\0\0\0\0\0\0", 8);
	put(b, FRAME_DATA, FRAME_STDOUT, "", 0);
	put(b, FRAME_DATA, FRAME_STDOUT, "!", 1);
	put(b, FRAME_EXIT, 0, "\x8f\0\0\0\x02\0\0\0", 8);
	put(b, FRAME_DATA, FRAME_STDOUT, "after the end", 13);
}

static void check(struct seen *s)
{
	assert_int_equal(s->pid, 0x2211);
	assert_int_equal(s->time, 123456789);
	assert_int_equal(s->out.size, 8);
	assert_memory_equal(s->out.data, "one\0two!", 8);
	assert_int_equal(s->err.size, 3);
	assert_memory_equal(s->err.data, "bad", 3);
	assert_int_equal(s->gap, 5);
	assert_int_equal(s->code, 143);
	assert_int_equal(s->flags, FRAME_EXIT_CANCELLED);
	assert_int_equal(s->exits, 1);
	buf_release(&s->out);
	buf_release(&s->err);
}

static void frames_are_read_however_they_are_cut(void **state)
{
	AUTO_BUF all = BUF_INIT;

	(void)state;
	make(&all);
	for (size_t step = 1; step <= all.size; step++) {
		struct seen seen = {.out = BUF_INIT, .err = BUF_INIT};
		struct frame_parser p;

		frame_parser_init(&p);
		for (size_t at = 0; at < all.size; at += step) {
			size_t n = all.size - at < step ? all.size - at : step;
			char *piece = malloc(n); /* so that reading past it is noticed */
			memcpy(piece, all.data + at, n);
			assert_int_equal(frame_parser_feed(&p, piece, n, &events, &seen), 0);
			free(piece);
		}
		assert_true(p.ended);
		check(&seen);
	}
}

static void refuse(int type, int stream, const void *body, uint32_t length, size_t n)
{
	AUTO_BUF b = BUF_INIT;
	struct seen seen = {.out = BUF_INIT, .err = BUF_INIT};
	struct frame_parser p;

	put(&b, type, stream, body, n);
	buf_patch_u32(&b, 4, length);
	frame_parser_init(&p);
	assert_int_equal(frame_parser_feed(&p, b.data, b.size, &events, &seen), -EPROTO);
	assert_int_equal(seen.exits, 0);
}

static void lengths_and_streams_that_cannot_be_are_refused(void **state)
{
	(void)state;
	refuse(FRAME_DATA, FRAME_STDOUT, "x", FRAME_MAX + 1, 1);
	refuse(FRAME_DATA, FRAME_STDOUT, "x", UINT32_MAX, 1);
	refuse(FRAME_DATA, 3, "x", 1, 1);
	refuse(FRAME_DATA, 0, "x", 1, 1);
	refuse(FRAME_EXIT, 0, "\0\0\0\0", 4, 4);
	refuse(FRAME_STARTED, 0, "\0", 1, 1);
	refuse(FRAME_GAP, 0, "\0\0\0\0", 4, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_are_read_however_they_are_cut),
		cmocka_unit_test(lengths_and_streams_that_cannot_be_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
