/*
 * Pure functions on text; see text.h. No state, no files but the kernel's random numbers and clocks.
 */
#include "text.h"

#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/*
 * The length of the well-formed sequence at p; 0 if it is malformed; -k if it is well-formed so far but k bytes
 * are all there is of it.
 */
static int sequence(const unsigned char *p, size_t n)
{
	unsigned char c = p[0];
	if (c < 0x80)
		return 1;
	int length = c >= 0xc2 && c <= 0xdf   ? 2
				 : (c & 0xf0) == 0xe0     ? 3
				 : c >= 0xf0 && c <= 0xf4 ? 4
										  : 0;
	if (!length)
		return 0;
	for (int i = 1; i < length; i++) {
		if ((size_t)i == n)
			return -i;
		unsigned char low = 0x80, high = 0xbf;
		if (i == 1) {
			/* The second byte rules out long forms, surrogates and what lies beyond U+10FFFF. */
			low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
			high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
		}
		if (p[i] < low || p[i] > high)
			return 0;
	}
	return length;
}

size_t text_repair(struct buf *out, const void *bytes, size_t n, bool last)
{
	const unsigned char *p = bytes;
	size_t at = 0, good = 0;
	while (at < n) {
		int length = sequence(p + at, n - at);
		if (length > 0) {
			at += (size_t)length;
			continue;
		}
		if (length < 0 && !last)
			break;
		buf_add(out, p + good, at - good);
		buf_str(out, "\xef\xbf\xbd");
		at += length < 0 ? (size_t)-length : 1;
		good = at;
	}
	buf_add(out, p + good, at - good);
	return at;
}

bool text_is_text(const void *bytes, size_t n)
{
	const unsigned char *p = bytes;
	size_t at = 0;
	while (at < n) {
		int length = p[at] ? sequence(p + at, n - at) : 0;
		if (!length)
			return false;
		if (length < 0)
			break;
		at += (size_t)length;
	}
	return true;
}

size_t text_utf16_length(const char *p, size_t n)
{
	size_t units = 0;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)p[i];
		units += (c & 0xc0) != 0x80;
		units += c >= 0xf0;
	}
	return units;
}

struct json_object *text_json(const void *p, size_t n)
{
	AUTO_BUF b = BUF_INIT;
	text_repair(&b, p, n, true);
	if (buf_error(&b) < 0 || b.size > INT32_MAX)
		return NULL;
	return json_object_new_string_len(b.data ? b.data : "", (int)b.size);
}

struct json_object *text_json_str(const char *s)
{
	return text_json(s, strlen(s));
}

static const char base64_letters[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void text_base64(struct buf *out, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;
	size_t size = (n + 2) / 3 * 4;
	char *to = buf_reserve(out, size);
	if (!to)
		return;
	for (size_t i = 0; i < n; i += 3) {
		unsigned v = (unsigned)p[i] << 16;
		v |= i + 1 < n ? (unsigned)p[i + 1] << 8 : 0;
		v |= i + 2 < n ? p[i + 2] : 0;
		*to++ = base64_letters[v >> 18];
		*to++ = base64_letters[v >> 12 & 63];
		*to++ = i + 1 < n ? base64_letters[v >> 6 & 63] : '=';
		*to++ = i + 2 < n ? base64_letters[v & 63] : '=';
	}
	*to = '\0';
	out->size += size;
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int text_unbase64(struct buf *out, const char *p, size_t n)
{
	while (n && p[n - 1] == '=')
		n--;
	char *to = buf_reserve(out, n / 4 * 3 + 3);
	if (!to)
		return -ENOMEM;
	char *start = to;
	unsigned v = 0;
	for (size_t i = 0; i < n; i++) {
		int letter = base64_value(p[i]);
		if (letter < 0)
			return -EINVAL;
		v = v << 6 | (unsigned)letter;
		if (i % 4 == 3) {
			*to++ = (char)(v >> 16);
			*to++ = (char)(v >> 8);
			*to++ = (char)v;
			v = 0;
		}
	}
	if (n % 4 == 1)
		return -EINVAL;
	if (n % 4 == 2)
		*to++ = (char)(v >> 4);
	if (n % 4 == 3) {
		*to++ = (char)(v >> 10);
		*to++ = (char)(v >> 2);
	}
	out->size += (size_t)(to - start);
	out->data[out->size] = '\0';
	return 0;
}

struct json_object *text_time(const struct timespec *t)
{
	struct timespec now;
	if (!t) {
		clock_gettime(CLOCK_REALTIME, &now);
		t = &now;
	}
	struct tm tm;
	char day[64] = "1970-01-01T00:00:00", whole[80];
	if (gmtime_r(&t->tv_sec, &tm))
		strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(whole, sizeof whole, "%s.%03ldZ", day, t->tv_nsec / 1000000);
	return json_object_new_string(whole);
}

int64_t text_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t text_monotonic_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void text_random(char *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)i;
		/* Only uniqueness depends on it, and the time in the id helps: an early boot's failure is harmless. */
		(void)!getrandom(&c, 1, 0);
		out[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[c % 36];
	}
	out[n] = '\0';
}

void text_errno(struct buf *out, int err)
{
	/* The words of the official server where they differ from strerror's. */
	static const struct {
		int err;
		const char *words;
	} table[] = {{EISDIR, "illegal operation on a directory"}, {ENAMETOOLONG, "name too long"},
		{EIO, "i/o error"}, {EBUSY, "resource busy or locked"},
		{ELOOP, "too many symbolic links encountered"}, {E2BIG, "argument list too long"}};
	if (err < 0)
		err = -err;
	const char *name = strerrorname_np(err);
	const char *words = strerrordesc_np(err);
	buf_printf(out, "%s: ", name ? name : "EIO");
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (table[i].err == err) {
			buf_str(out, table[i].words);
			return;
		}
	for (const char *s = words ? words : "unknown error"; *s; s++)
		buf_char(out, (char)tolower((unsigned char)*s));
}
