/* links: sandboxfs/frame_parser.c sandboxfs/feed.c contrib/common/buf.c sandboxfs/call.c */
/*
 * Frames of a command's output, cut anywhere, through the parser into a feed. However they are cut, the same is told.
 * The first byte says how they are cut.
 */
#include <errno.h>

#include "buf.h"
#include "feed.h"
#include "frame_parser.h"
#include "fuzz.h"

/* The output that the feed reads is the parser, here; there is one at a time. */
struct output {
	const struct output_events *ev;
	void *arg;
};
static struct output *the_output;

int output_attach(struct sandbox *sb, const char *id, uint64_t from, const struct output_events *ev,
	void *arg, struct output **out)
{
	(void)sb;
	(void)id;
	(void)from;
	*out = malloc(sizeof **out);
	MUST(*out);
	**out = (struct output){ev, arg};
	the_output = *out;
	return 0;
}
void output_resume(struct output *o)
{
	(void)o;
}
void output_close(struct output *o)
{
	free(o);
}

static void on_started(void *arg, uint64_t time, uint32_t pid)
{
	(void)arg;
	(void)time;
	/* a place in the feed, so that its order is looked at as well */
	the_output->ev->gap(the_output->arg, 3, pid);
}
static void on_data(void *arg, uint64_t time, unsigned stream, const void *p, size_t n)
{
	(void)arg;
	the_output->ev->data(the_output->arg, time, stream, p, n);
}
static void on_gap(void *arg, unsigned stream, uint64_t n)
{
	(void)arg;
	the_output->ev->gap(the_output->arg, stream, n);
}
static void on_exited(void *arg, uint64_t time, int code, unsigned flags)
{
	(void)arg;
	struct output_end end = {.time = time, .code = code, .timed_out = flags & 1};
	the_output->ev->end(the_output->arg, &end);
}
static void on_wake(void *arg)
{
	(void)arg;
}
static const struct frame_events events = {on_started, on_data, on_gap, on_exited};

/* What is there now, into bytes of each stream and lines. */
static void drain(struct feed *f, struct buf *log, struct buf streams[2])
{
	struct feed_item item;
	while (feed_next(f, &item) == 1)
		switch (item.kind) {
		case FEED_DATA:
			MUST(item.stream == 1 || item.stream == 2);
			buf_add(&streams[item.stream - 1], item.p, item.n);
			break;
		case FEED_GAP:
			buf_printf(log, "gap %u %llu\n", item.stream, (unsigned long long)item.gap);
			break;
		default:
			buf_printf(log, "exit %d %d\n", item.code, item.timed_out);
		}
}

/* One reading of the bytes, cut into pieces of this size (0: whole). */
static int read_all(
	const uint8_t *data, size_t size, size_t cut, struct buf *log, struct buf streams[2])
{
	struct frame_parser parser;
	struct feed *f;
	int err = 0;
	MUST(feed_new(NULL, on_wake, NULL, &f) == 0);
	MUST(feed_attach(f, "x", 0) == 0);
	frame_parser_init(&parser);
	while (!err && size) {
		size_t part = cut && cut < size ? cut : size;
		char *piece = fuzz_exact(data, part);
		err = frame_parser_feed(&parser, piece, part, &events, NULL);
		free(piece);
		data += part;
		size -= part;
		if (part & 1)
			drain(f, log, streams);
	}
	drain(f, log, streams);
	feed_close(f);
	MUST(err == 0 || err == -EPROTO);
	return err;
}

static bool same(const struct buf *a, const struct buf *b)
{
	return a->size == b->size && (!a->size || memcmp(a->data, b->data, a->size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf log[2] = {BUF_INIT, BUF_INIT};
	struct buf streams[2][2] = {{BUF_INIT, BUF_INIT}, {BUF_INIT, BUF_INIT}};
	int err[2];
	if (!size)
		return 0;
	err[0] = read_all(data + 1, size - 1, 0, &log[0], streams[0]);
	err[1] = read_all(data + 1, size - 1, 1 + data[0] % 32, &log[1], streams[1]);
	MUST(err[0] == err[1]);
	MUST(same(&log[0], &log[1]));
	MUST(same(&streams[0][0], &streams[1][0]) && same(&streams[0][1], &streams[1][1]));
	for (int i = 0; i < 2; i++) {
		buf_release(&log[i]);
		buf_release(&streams[i][0]);
		buf_release(&streams[i][1]);
	}
	return 0;
}
