/* links: contrib/common/buf.c contrib/sandboxd/text.c contrib/sandboxd/ws_frames.c */
/* Frames of WebSockets on the server's side: what is taken, what is answered, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../contrib/sandboxd/ws_frames.h"

enum { MOST = 100000, CLOSE_PROTOCOL = 1002, CLOSE_NOT_TEXT = 1007, CLOSE_TOO_BIG = 1009 };

struct seen {
	unsigned count;
	bool binary;
	struct buf message;
};

static void on_message(void *arg, bool binary, const void *p, size_t n)
{
	struct seen *s = arg;
	s->count++;
	s->binary = binary;
	buf_clear(&s->message);
	buf_add(&s->message, p, n);
}

struct rig {
	struct ws_frames frames;
	struct seen seen;
};

static void rig_init(struct rig *r)
{
	r->seen = (struct seen){.message = BUF_INIT};
	ws_frames_init(&r->frames, on_message, &r->seen, MOST);
}

static void rig_end(struct rig *r)
{
	ws_frames_release(&r->frames);
	buf_release(&r->seen.message);
}

/* A client's frame. */
static void put(struct buf *b, unsigned first, const void *p, size_t n)
{
	static const unsigned char mask[4] = {0xa5, 0x00, 0x3c, 0xff};
	buf_u8(b, (uint8_t)first);
	if (n < 126) {
		buf_u8(b, (uint8_t)(0x80 | n));
	} else if (n < 65536) {
		buf_u8(b, 0x80 | 126);
		buf_u8(b, (uint8_t)(n >> 8));
		buf_u8(b, (uint8_t)n);
	} else {
		buf_u8(b, 0x80 | 127);
		for (int i = 7; i >= 0; i--)
			buf_u8(b, (uint8_t)((uint64_t)n >> (8 * i)));
	}
	buf_add(b, mask, 4);
	for (size_t i = 0; i < n; i++)
		buf_u8(b, ((const uint8_t *)p)[i] ^ mask[i % 4]);
	assert_int_equal(buf_error(b), 0);
}

static void take(struct rig *r, struct buf *b)
{
	/* In memory of its own size, so that one byte too far is seen. */
	char *copy = malloc(b->size);
	memcpy(copy, b->data, b->size);
	assert_int_equal(ws_frames_take(&r->frames, copy, b->size), 0);
	free(copy);
	buf_clear(b);
}

static void take_bytes(struct rig *r, struct buf *b)
{
	for (size_t i = 0; i < b->size; i++)
		assert_int_equal(ws_frames_take(&r->frames, b->data + i, 1), 0);
	buf_clear(b);
}

static void assert_out(struct rig *r, const void *p, size_t n)
{
	size_t have;
	const void *out = ws_frames_out(&r->frames, &have);
	assert_int_equal(have, n);
	if (n)
		assert_memory_equal(out, p, n);
	ws_frames_sent(&r->frames, n);
}

/* The next that goes out is a closing with that code. */
static void assert_closing(struct rig *r, unsigned code)
{
	size_t n;
	const unsigned char *out = ws_frames_out(&r->frames, &n);
	assert_true(n >= 4);
	assert_int_equal(out[0], 0x80 | WS_CLOSE);
	assert_int_equal(out[1], n - 2);
	assert_int_equal(out[2] << 8 | out[3], code);
	assert_true(r->frames.over);
}

static void messages_of_every_length_come_whole(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 3, 4, 5, 125, 126, 127, 65535, 65536, MOST};
	unsigned char *p = malloc(MOST);
	for (size_t i = 0; i < MOST; i++)
		p[i] = (unsigned char)(i * 7 + (i >> 8));
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		for (int bytewise = 0; bytewise < 2; bytewise++) {
			struct rig r;
			AUTO_BUF b = BUF_INIT;
			rig_init(&r);
			put(&b, 0x80 | WS_BINARY, p, sizes[i]);
			(bytewise ? take_bytes : take)(&r, &b);
			assert_int_equal(r.seen.count, 1);
			assert_true(r.seen.binary);
			assert_int_equal(r.seen.message.size, sizes[i]);
			if (sizes[i])
				assert_memory_equal(r.seen.message.data, p, sizes[i]);
			rig_end(&r);
		}
	}
	free(p);
}

static void pieces_are_one_message_and_a_ping_may_come_between(void **state)
{
	(void)state;
	struct rig r;
	AUTO_BUF b = BUF_INIT;
	rig_init(&r);
	put(&b, WS_TEXT, "caf\xc3", 4);
	put(&b, 0x80 | WS_PING, "are you there", 13);
	put(&b, WS_CONTINUATION, "", 0);
	put(&b, 0x80 | WS_CONTINUATION, "\xa9", 1);
	put(&b, 0x80 | WS_TEXT, "next", 4);
	take_bytes(&r, &b);
	assert_int_equal(r.seen.count, 2);
	assert_false(r.seen.binary);
	assert_string_equal(r.seen.message.data, "next");
	assert_out(&r,
		"\x8a\x0d"
		"are you there",
		15);
	rig_end(&r);
}

static void what_is_put_goes_out_in_order(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	assert_int_equal(ws_frames_put(&r.frames, WS_TEXT, "hi", 2), 0);
	assert_int_equal(ws_frames_put(&r.frames, WS_BINARY, "", 0), 0);
	assert_int_equal(ws_frames_close(&r.frames, 1000, "bye"), 0);
	/* nothing behind a closing, and only one */
	assert_int_equal(ws_frames_put(&r.frames, WS_TEXT, "late", 4), 0);
	assert_int_equal(ws_frames_close(&r.frames, 1011, "again"), 0);
	assert_out(&r,
		"\x81\x02hi\x82\x00\x88\x05\x03\xe8"
		"bye",
		13);

	char *large = calloc(1, 70000);
	rig_end(&r);
	rig_init(&r);
	assert_int_equal(ws_frames_put(&r.frames, WS_BINARY, large, 126), 0);
	assert_int_equal(ws_frames_put(&r.frames, WS_BINARY, large, 70000), 0);
	size_t n;
	const unsigned char *out = ws_frames_out(&r.frames, &n);
	assert_int_equal(n, 4 + 126 + 10 + 70000);
	assert_memory_equal(out, "\x82\x7e\x00\x7e", 4);
	assert_memory_equal(out + 130, "\x82\x7f\x00\x00\x00\x00\x00\x01\x11\x70", 10);
	/* taken in pieces it stays the same */
	for (size_t at = 0; at < n; at += 1000)
		ws_frames_sent(&r.frames, n - at < 1000 ? n - at : 1000);
	assert_out(&r, NULL, 0);
	free(large);
	rig_end(&r);
}

static void a_closing_is_answered_and_ends_it(void **state)
{
	(void)state;
	struct rig r;
	AUTO_BUF b = BUF_INIT;
	rig_init(&r);
	put(&b, 0x80 | WS_CLOSE, "\x03\xe9going", 7);
	put(&b, 0x80 | WS_TEXT, "late", 4);
	take(&r, &b);
	assert_int_equal(r.seen.count, 0);
	assert_closing(&r, 1001);
	rig_end(&r);

	rig_init(&r);
	put(&b, 0x80 | WS_CLOSE, "", 0);
	take(&r, &b);
	assert_closing(&r, 1000);
	rig_end(&r);
}

static void who_asks_without_end_and_does_not_read_costs_no_memory(void **state)
{
	(void)state;
	struct rig r;
	AUTO_BUF b = BUF_INIT;
	rig_init(&r);
	char body[WS_CONTROL_MAX] = {0};
	for (int i = 0; i < 10000; i++) {
		put(&b, 0x80 | WS_PING, body, sizeof body);
		take(&r, &b);
	}
	size_t n;
	(void)ws_frames_out(&r.frames, &n);
	assert_true(n > 0 && n < 100000);
	rig_end(&r);
}

struct wrong {
	const char *what;
	unsigned code;
	const char *p;
	size_t n;
};

static void what_breaks_the_rules_is_told_why(void **state)
{
	(void)state;
	static const struct wrong wrongs[] = {
		{"no mask", CLOSE_PROTOCOL, "\x81\x02hi", 4},
		{"a reserved bit", CLOSE_PROTOCOL, "\xc1\x80\0\0\0\0", 6},
		{"a frame of no kind", CLOSE_PROTOCOL, "\x83\x80\0\0\0\0", 6},
		{"a control frame of no kind", CLOSE_PROTOCOL, "\x8b\x80\0\0\0\0", 6},
		{"a ping in pieces", CLOSE_PROTOCOL, "\x09\x80\0\0\0\0", 6},
		{"a long ping", CLOSE_PROTOCOL, "\x89\xfe\x00\x7e\0\0\0\0", 8},
		{"nothing to continue", CLOSE_PROTOCOL, "\x80\x80\0\0\0\0", 6},
		{"a message within one", CLOSE_PROTOCOL, "\x01\x80\0\0\0\0\x81\x80\0\0\0\0", 12},
		{"not UTF-8", CLOSE_NOT_TEXT, "\x81\x81\0\0\0\0\xff", 7},
		{"cut UTF-8", CLOSE_NOT_TEXT, "\x81\x81\0\0\0\0\xc3", 7},
		{"half a code", CLOSE_PROTOCOL, "\x88\x81\0\0\0\0\x03", 7},
		{"a code that is never sent", CLOSE_PROTOCOL, "\x88\x82\0\0\0\0\x03\xed", 8},
		{"a reason that is no text", CLOSE_PROTOCOL, "\x88\x83\0\0\0\0\x03\xe8\xff", 9},
		{"too large", CLOSE_TOO_BIG, "\x82\xff\0\0\0\0\x01\0\0\0\0\0\0\0", 14},
		{"larger than can be", CLOSE_TOO_BIG, "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
			14},
	};
	for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
		struct rig r;
		AUTO_BUF b = BUF_INIT;
		rig_init(&r);
		buf_add(&b, wrongs[i].p, wrongs[i].n);
		put(&b, 0x80 | WS_TEXT, "late", 4);
		take(&r, &b);
		assert_int_equal(r.seen.count, 0);
		if (!r.frames.over)
			fail_msg("%s", wrongs[i].what);
		assert_closing(&r, wrongs[i].code);
		rig_end(&r);
	}
}

static void pieces_together_may_not_be_too_large(void **state)
{
	(void)state;
	struct rig r;
	AUTO_BUF b = BUF_INIT;
	char *p = calloc(1, MOST);
	rig_init(&r);
	put(&b, WS_BINARY, p, MOST);
	put(&b, WS_CONTINUATION, p, 1);
	take(&r, &b);
	assert_closing(&r, CLOSE_TOO_BIG);
	free(p);
	rig_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_of_every_length_come_whole),
		cmocka_unit_test(pieces_are_one_message_and_a_ping_may_come_between),
		cmocka_unit_test(what_is_put_goes_out_in_order),
		cmocka_unit_test(a_closing_is_answered_and_ends_it),
		cmocka_unit_test(who_asks_without_end_and_does_not_read_costs_no_memory),
		cmocka_unit_test(what_breaks_the_rules_is_told_why),
		cmocka_unit_test(pieces_together_may_not_be_too_large),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
