/*
 * The opening handshake: see websocket_handshake.h. Everything in an answer comes from untrusted code and is checked.
 */
#include "websocket_handshake.h"

#include <errno.h>
#include <nettle/base64.h>
#include <nettle/sha1.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "cleanup.h"

enum { WORD_SHOWN = 100 };

/* --- what is asked --- */

/* Is s a token of HTTP (the name of a header, a protocol)? */
static bool is_token(const char *s, size_t n)
{
	static const char others[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < n; i++) {
		char ch = s[i];
		bool letter = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
		if (!letter && !(ch >= '0' && ch <= '9') && (!ch || !strchr(others, ch)))
			return false;
	}
	return n > 0;
}

/* Headers of the handshake itself: another value would break it. */
static bool is_ours(const char *name, size_t n)
{
	static const char *const ours[] = {"Connection", "Upgrade", "Content-Length",
		"Transfer-Encoding", "Trailer", "TE", "Expect", "Keep-Alive"};

	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++) {
		if (strlen(ours[i]) == n && strncasecmp(name, ours[i], n) == 0)
			return true;
	}
	return n >= 14 && strncasecmp(name, "Sec-WebSocket-", 14) == 0;
}

static int check_header(struct call *c, const char *header)
{
	size_t n = strcspn(header, ":");

	if (header[n] != ':' || !is_token(header, n))
		return call_fault(
			c, EINVAL, NULL, "not a header: %.*s; write header=NAME:VALUE", WORD_SHOWN, header);
	if (is_ours(header, n))
		return call_fault(c, EINVAL, NULL,
			"the header %.*s belongs to the handshake; protocols are given as protocol=P", (int)n,
			header);
	for (const char *p = header + n + 1; *p; p++) {
		if ((unsigned char)*p < ' ' ? *p != '\t' : *p == 127)
			return call_fault(
				c, EINVAL, NULL, "the value of %.*s holds a control character", (int)n, header);
	}
	return 0;
}

int websocket_check(struct call *c, const struct websocket_spec *spec)
{
	if (spec->path[0] != '/')
		return call_fault(
			c, EINVAL, NULL, "not a path: %.*s; it begins with a slash", WORD_SHOWN, spec->path);
	for (const char *p = spec->path; *p; p++) {
		if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 127 || *p == '#')
			return call_fault(c, EINVAL, NULL,
				"%.*s: blanks, # and letters that are not ASCII are written %%XX in a path",
				WORD_SHOWN, spec->path);
	}
	for (const char *p = spec->protocol; p;) {
		size_t n = strcspn(p, ",");
		if (!is_token(p, n))
			return call_fault(c, EINVAL, NULL, "not a protocol: %.*s; write protocol=P or P1,P2",
				WORD_SHOWN, spec->protocol);
		p = p[n] ? p + n + 1 : NULL;
	}
	for (const char *const *h = spec->headers; h && *h; h++) {
		int err = check_header(c, *h);
		if (err)
			return err;
	}
	return 0;
}

int websocket_make_key(char key[WEBSOCKET_KEY + 1])
{
	unsigned char random[16];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	base64_encode_raw(key, sizeof(random), random);
	key[WEBSOCKET_KEY] = 0;
	return 0;
}

int websocket_request(struct buf *out, const struct websocket_spec *spec, const char *host,
	const char *token, const char *key)
{
	bool has_host = false;

	for (const char *const *h = spec->headers; h && *h; h++)
		has_host = has_host || strncasecmp(*h, "Host:", 5) == 0;
	buf_printf(out, "GET %s HTTP/1.1\r\n", spec->path);
	if (!has_host)
		buf_printf(out, "Host: %s\r\n", host);
	buf_printf(out,
		"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
		"Sec-WebSocket-Key: %s\r\n",
		key);
	if (spec->protocol)
		buf_printf(out, "Sec-WebSocket-Protocol: %s\r\n", spec->protocol);
	if (token)
		buf_printf(out, "Authorization: Bearer %s\r\n", token);
	for (const char *const *h = spec->headers; h && *h; h++) {
		size_t n = strcspn(*h, ":");
		const char *value = *h + n + 1;
		buf_printf(out, "%.*s: %s\r\n", (int)n, *h, value + strspn(value, " \t"));
	}
	buf_str(out, "\r\n");
	return buf_error(out);
}

char *websocket_accept(const char *key)
{
	static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	struct sha1_ctx sha;
	uint8_t digest[SHA1_DIGEST_SIZE];
	char *text = malloc(BASE64_ENCODE_RAW_LENGTH(SHA1_DIGEST_SIZE) + 1);

	if (!text)
		return NULL;
	sha1_init(&sha);
	sha1_update(&sha, strlen(key), (const uint8_t *)key);
	sha1_update(&sha, strlen(magic), (const uint8_t *)magic);
	sha1_digest(&sha, sizeof(digest), digest);
	base64_encode_raw(text, sizeof(digest), digest);
	text[BASE64_ENCODE_RAW_LENGTH(SHA1_DIGEST_SIZE)] = 0;
	return text;
}

/* --- what is answered --- */

ssize_t websocket_head_size(const char *p, size_t n)
{
	static const char http[] = "HTTP/1.";
	size_t look = n < WEBSOCKET_HEAD_MAX ? n : WEBSOCKET_HEAD_MAX;
	size_t start = n < strlen(http) ? n : strlen(http);

	if (start && memcmp(p, http, start) != 0)
		return -EPROTO;
	const char *end = look ? memmem(p, look, "\r\n\r\n", 4) : NULL;
	if (end)
		return end - p + 4;
	return look < WEBSOCKET_HEAD_MAX ? 0 : -EPROTO;
}

int websocket_head_status(const char *p, size_t n)
{
	/* "HTTP/1.1 101" */
	if (n < 12 || p[8] != ' ')
		return 0;
	int status = 0;
	for (size_t i = 9; i < 12; i++) {
		if (p[i] < '0' || p[i] > '9')
			return 0;
		status = status * 10 + (p[i] - '0');
	}
	return status;
}

struct header {
	const char *name, *value;
	size_t name_size, value_size;
};

/* The header at *p, which moves on behind it. False: there is none, or it is none (then *bad). */
static bool next_header(const char **p, const char *end, struct header *h, bool *bad)
{
	const char *line_end = *p < end ? memmem(*p, (size_t)(end - *p), "\r\n", 2) : NULL;

	if (!line_end || line_end == *p)
		return false;
	const char *colon = memchr(*p, ':', (size_t)(line_end - *p));
	h->name = *p;
	h->name_size = colon ? (size_t)(colon - *p) : 0;
	*p = line_end + 2;
	if (!is_token(h->name, h->name_size)) {
		*bad = true;
		return false;
	}
	h->value = colon + 1;
	while (h->value < line_end && (*h->value == ' ' || *h->value == '\t'))
		h->value++;
	while (line_end > h->value && (line_end[-1] == ' ' || line_end[-1] == '\t'))
		line_end--;
	h->value_size = (size_t)(line_end - h->value);
	return true;
}

static bool header_is(const struct header *h, const char *name)
{
	return h->name_size == strlen(name) && strncasecmp(h->name, name, h->name_size) == 0;
}

/* Is word one of the n bytes at list, which are separated by commas? */
static bool list_has(const char *list, size_t n, const char *word, size_t size, bool fold)
{
	for (const char *p = list, *end = list + n; p < end;) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		const char *stop = comma ? comma : end;
		const char *last = stop;
		while (p < last && (*p == ' ' || *p == '\t'))
			p++;
		while (last > p && (last[-1] == ' ' || last[-1] == '\t'))
			last--;
		if ((size_t)(last - p) == size &&
			(fold ? strncasecmp(p, word, size) : strncmp(p, word, size)) == 0)
			return true;
		p = comma ? comma + 1 : end;
	}
	return false;
}

static int refuse(char **why, int err, const char *text)
{
	*why = strdup(text);
	return err;
}

/* The service said something else than 101. */
static int refused_status(const char *p, size_t n, int status, char **why)
{
	const char *end = memmem(p, n, "\r\n", 2);
	AUTO_BUF text = BUF_INIT;

	buf_str(&text, "the service answered ");
	/* Printable, and not more than fits a line. */
	for (const char *at = p + 9; at < end && at < p + WORD_SHOWN; at++)
		buf_char(&text, *at >= ' ' && *at < 127 ? *at : '?');
	*why = buf_steal(&text);
	switch (status) {
	case 0:
		free(*why);
		return refuse(why, -EPROTO, "the service does not speak HTTP");
	case 401:
	case 403:
		return -EACCES;
	case 404:
	case 410:
		return -ENOENT;
	case 429:
	case 503:
		return -EBUSY;
	default:
		return -EPROTO;
	}
}

int websocket_answer(
	const char *p, size_t n, const char *key, const char *wanted, char **protocol, char **why)
{
	const char *end = p + n, *at = memmem(p, n, "\r\n", 2);
	int status = websocket_head_status(p, n);
	bool upgraded = false, connected = false, accepted = false, bad = false;
	struct header h;

	*protocol = NULL;
	*why = NULL;
	if (status != 101 || !at)
		return refused_status(p, n, status, why);
	AUTO_FREE char *accept = websocket_accept(key);
	AUTO_FREE char *chosen = NULL;
	if (!accept)
		return -ENOMEM;
	at += 2;
	while (next_header(&at, end, &h, &bad)) {
		if (header_is(&h, "Upgrade")) {
			upgraded = list_has(h.value, h.value_size, "websocket", 9, true);
		} else if (header_is(&h, "Connection")) {
			connected = connected || list_has(h.value, h.value_size, "upgrade", 7, true);
		} else if (header_is(&h, "Sec-WebSocket-Accept")) {
			accepted = h.value_size == strlen(accept) && memcmp(h.value, accept, h.value_size) == 0;
		} else if (header_is(&h, "Sec-WebSocket-Extensions")) {
			bad = bad || h.value_size > 0; /* none was offered */
		} else if (header_is(&h, "Sec-WebSocket-Protocol")) {
			if (chosen || !wanted || !is_token(h.value, h.value_size) ||
				!list_has(wanted, strlen(wanted), h.value, h.value_size, false))
				return refuse(why, -EPROTO, "the service chose a protocol that was not offered");
			chosen = strndup(h.value, h.value_size);
			if (!chosen)
				return -ENOMEM;
		}
	}
	if (bad)
		return refuse(why, -EPROTO, "the service's answer to the handshake is malformed");
	if (!upgraded || !connected || !accepted)
		return refuse(why, -EPROTO, "the service did not accept the WebSocket handshake");
	*protocol = steal(chosen);
	return 0;
}
