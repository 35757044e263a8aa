/*
 * Log events: see log_event.h.
 */
#include "log_event.h"

#include <json-c/json.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "json_make.h"

/* Length of the UTF-8 character at p; 0: cut at the end; -1: none. */
static int character(const unsigned char *p, size_t n)
{
	int length = p[0] < 0x80                   ? 1
				 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
				 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
				 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
											   : -1;

	for (int i = 1; i < length; i++) {
		if ((size_t)i >= n)
			return 0;
		if ((p[i] & 0xc0) != 0x80)
			return -1;
		/* Longer than need be, surrogates, beyond the last: told by the second byte. */
		if (i == 1 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
						  (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)))
			return -1;
	}
	return length;
}

size_t log_event_whole(const char *p, size_t n, bool *valid)
{
	const unsigned char *at = (const unsigned char *)p;
	size_t i = 0;

	*valid = true;
	while (i < n) {
		int length = character(at + i, n - i);
		if (length == 0)
			return i;
		if (length < 0) {
			*valid = false;
			length = 1;
		}
		i += (size_t)length;
	}
	return n;
}

void log_event_init(struct log_event_state *s, const char *id)
{
	memset(s, 0, sizeof(*s));
	s->id = id;
}

void log_event_release(struct log_event_state *s)
{
	memset(s, 0, sizeof(*s));
}

/* ---- writing ---- */

static void put_json_string(struct buf *out, const char *p, size_t n)
{
	struct json_object *o = n <= INT32_MAX ? json_object_new_string_len(p, (int)n) : NULL;

	const char *text = json_text_of(o, NULL);

	if (text)
		buf_str(out, text);
	else
		out->failed = true;
	json_object_put(o);
}

/* Bytes that are not UTF-8, each as U+FFFD, so that the line is JSON all the same. */
static void put_lossy(struct buf *out, const char *p, size_t n)
{
	AUTO_BUF text = BUF_INIT;

	for (size_t i = 0; i < n;) {
		int length = character((const unsigned char *)p + i, n - i);
		if (length > 0) {
			buf_add(&text, p + i, (size_t)length);
			i += (size_t)length;
		} else {
			buf_str(&text, "\xef\xbf\xbd");
			i++;
		}
	}
	put_json_string(out, text.data ? text.data : "", text.size);
}

static void put_base64(struct buf *out, const char *p, size_t n)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *at = (const unsigned char *)p;

	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t v = (uint32_t)at[i] << 16 | (left > 1 ? (uint32_t)at[i + 1] << 8 : 0) |
					 (left > 2 ? at[i + 2] : 0);
		buf_char(out, letters[v >> 18]);
		buf_char(out, letters[v >> 12 & 63]);
		buf_char(out, left > 1 ? letters[v >> 6 & 63] : '=');
		buf_char(out, left > 2 ? letters[v & 63] : '=');
	}
}

static void put_head(struct buf *out, const char *type)
{
	buf_printf(out, "{\"type\":\"%s\"", type);
}

static void put_tail(struct log_event_state *s, struct buf *out, uint64_t micros)
{
	struct timespec now;
	struct tm tm;
	char text[40];
	time_t seconds;

	if (micros == 0 || micros > (uint64_t)INT32_MAX * 4 * 1000000) {
		clock_gettime(CLOCK_REALTIME, &now);
		micros = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
	}
	if (micros < s->told)
		micros = s->told;
	s->told = micros;
	seconds = (time_t)(micros / 1000000);
	gmtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	if (s->id)
		buf_printf(out, ",\"processId\":\"%s\"", s->id);
	buf_printf(out, ",\"timestamp\":\"%s.%03uZ\"}\n", text, (unsigned)(micros / 1000 % 1000));
}

static void put_data(struct log_event_state *s, struct buf *out, unsigned stream, uint64_t time,
	const char *p, size_t n, bool valid)
{
	put_head(out, stream == 2 ? "stderr" : "stdout");
	buf_str(out, ",\"data\":");
	if (valid) {
		put_json_string(out, p, n);
	} else {
		put_lossy(out, p, n);
		buf_str(out, ",\"dataBase64\":\"");
		put_base64(out, p, n);
		buf_char(out, '"');
	}
	put_tail(s, out, time);
}

/* What was held back of a stream, whole or not. */
static void put_half(struct log_event_state *s, struct buf *out, unsigned stream)
{
	size_t n = s->halves[stream];
	char half[4];
	bool valid;

	if (n == 0)
		return;
	memcpy(half, s->half[stream], n);
	s->halves[stream] = 0;
	valid = log_event_whole(half, n, &valid) == n && valid;
	put_data(s, out, stream, s->time[stream], half, n, valid);
}

static void put_piece(struct log_event_state *s, struct buf *out, const struct feed_item *item)
{
	unsigned stream = item->stream == 2 ? 2 : 1;
	AUTO_BUF joined = BUF_INIT;
	bool valid;

	buf_add(&joined, s->half[stream], s->halves[stream]);
	buf_add(&joined, item->p, item->n);
	if (buf_error(&joined)) {
		out->failed = true;
		return;
	}
	size_t whole = log_event_whole(joined.data, joined.size, &valid);
	s->halves[stream] = joined.size - whole;
	s->time[stream] = item->time;
	if (joined.size > whole)
		memcpy(s->half[stream], joined.data + whole, joined.size - whole);
	if (whole > 0)
		put_data(s, out, stream, item->time, joined.data, whole, valid);
}

static void put_exit(struct log_event_state *s, struct buf *out, const struct feed_item *item)
{
	const char *how = item->code == 0 ? "completed" : "failed";

	if (!item->timed_out && (item->code == 137 || item->code == 143))
		how = "killed";
	if (item->timed_out) {
		put_head(out, "error");
		buf_str(out, ",\"code\":\"TIMEOUT\",\"data\":\"Process timed out\"");
		put_tail(s, out, item->time);
	}
	put_head(out, "exit");
	buf_printf(out, ",\"exitCode\":%d,\"data\":\"Process %s with exit code %d\"", item->code, how,
		item->code);
	put_tail(s, out, item->time);
}

void log_event_put(struct log_event_state *s, const struct feed_item *item, struct buf *out)
{
	if (item->kind == FEED_DATA) {
		put_piece(s, out, item);
		return;
	}
	put_half(s, out, 1);
	put_half(s, out, 2);
	if (item->kind == FEED_EXIT) {
		put_exit(s, out, item);
		return;
	}
	put_head(out, "error");
	if (item->kind == FEED_GAP) {
		buf_printf(out,
			",\"code\":\"OUTPUT_LOST\",\"lost\":%llu,\"data\":\"%llu bytes are no longer kept\"",
			(unsigned long long)item->gap, (unsigned long long)item->gap);
	} else {
		buf_str(out, ",\"data\":");
		const char *reason = item->reason ? item->reason : strerror(-item->err);
		put_json_string(out, reason, strlen(reason));
	}
	put_tail(s, out, item->time);
}
