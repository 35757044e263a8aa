/* The frames of WebSockets; see ws_frames.h. */
#include "ws_frames.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "text.h"

enum {
	FINAL = 0x80,
	RESERVED = 0x70,
	OPCODE = 0x0f,
	CONTROL = 0x08,
	MASKED = 0x80,
	LENGTH_16 = 126,
	LENGTH_64 = 127,
	MASK_SIZE = 4,
	CODE_PROTOCOL = 1002,
	CODE_NOT_TEXT = 1007,
	CODE_TOO_BIG = 1009,
	OUT_COMPACT = 64 << 10
};

void ws_frames_init(struct ws_frames *f,
	void (*message)(void *arg, bool binary, const void *p, size_t n), void *arg, size_t message_max)
{
	*f = (struct ws_frames){.message = message, .arg = arg, .message_max = message_max};
}

void ws_frames_release(struct ws_frames *f)
{
	buf_release(&f->control);
	buf_release(&f->body);
	buf_release(&f->out);
}

/* --- out --- */

static int put_frame(struct ws_frames *f, enum ws_opcode opcode, const void *p, size_t n)
{
	unsigned char header[10] = {FINAL | opcode};
	size_t size = 2;
	if (n < LENGTH_16) {
		header[1] = (unsigned char)n;
	} else {
		size_t bytes = n <= UINT16_MAX ? 2 : 8;
		header[1] = bytes == 2 ? LENGTH_16 : LENGTH_64;
		for (size_t i = 0; i < bytes; i++)
			header[2 + i] = (unsigned char)((uint64_t)n >> (8 * (bytes - 1 - i)));
		size += bytes;
	}
	if (!buf_reserve(&f->out, size + n))
		return -ENOMEM;
	buf_add(&f->out, header, size);
	buf_add(&f->out, p, n);
	return buf_error(&f->out);
}

int ws_frames_put(struct ws_frames *f, enum ws_opcode opcode, const void *p, size_t n)
{
	return f->closed ? 0 : put_frame(f, opcode, p, n);
}

int ws_frames_close(struct ws_frames *f, unsigned code, const char *reason)
{
	if (f->closed)
		return 0;
	f->closed = true;
	char body[WS_CONTROL_MAX];
	size_t n = strnlen(reason, sizeof body - 2);
	body[0] = (char)(code >> 8);
	body[1] = (char)code;
	memcpy(body + 2, reason, n);
	return put_frame(f, WS_CLOSE, body, n + 2);
}

const void *ws_frames_out(const struct ws_frames *f, size_t *n)
{
	*n = f->out.size - f->out_at;
	return f->out.data ? f->out.data + f->out_at : NULL;
}

void ws_frames_sent(struct ws_frames *f, size_t n)
{
	f->out_at += n;
	if (f->out_at == f->out.size) {
		/* One large message does not keep its memory for the life of the connection. */
		if (f->out.capacity > OUT_COMPACT)
			buf_release(&f->out);
		buf_clear(&f->out);
		f->out_at = 0;
	} else if (f->out_at >= OUT_COMPACT && f->out_at >= f->out.size / 2) {
		buf_consume(&f->out, f->out_at);
		f->out_at = 0;
	}
}

/* --- in --- */

static int refuse(struct ws_frames *f, unsigned code, const char *why)
{
	f->over = true;
	return ws_frames_close(f, code, why);
}

static bool is_utf8(const struct buf *b, size_t from)
{
	AUTO_BUF repaired = BUF_INIT;
	if (b->size == from)
		return true;
	const char *p = b->data + from;
	size_t n = b->size - from;
	(void)text_repair(&repaired, p, n, true); /* with `last` it uses all */
	return !buf_error(&repaired) && repaired.size == n && memcmp(repaired.data, p, n) == 0;
}

static bool code_is_allowed(unsigned code)
{
	return (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) ||
		   (code >= 3000 && code <= 4999);
}

static int take_close(struct ws_frames *f)
{
	f->over = true;
	const unsigned char *p = (const unsigned char *)f->control.data;
	if (!f->control.size)
		return ws_frames_close(f, 1000, "");
	if (f->control.size == 1)
		return refuse(f, CODE_PROTOCOL, "half a code");
	unsigned code = (unsigned)(p[0] << 8 | p[1]);
	if (!code_is_allowed(code) || !is_utf8(&f->control, 2))
		return refuse(f, CODE_PROTOCOL, "no such code, or its reason is no text");
	return ws_frames_close(f, code, "");
}

static int take_control(struct ws_frames *f, unsigned opcode)
{
	int rc = 0;
	if (opcode == WS_CLOSE)
		rc = take_close(f);
	/* One that asks and asks and does not read gets no answer to each. */
	else if (opcode == WS_PING && f->out.size - f->out_at < OUT_COMPACT)
		rc = ws_frames_put(f, WS_PONG, f->control.data ? f->control.data : "", f->control.size);
	buf_clear(&f->control);
	return rc;
}

static int take_message(struct ws_frames *f)
{
	uint8_t opcode = f->opcode;
	f->opcode = WS_CONTINUATION;
	/* Its own while the handler has it: a large one is freed, not kept. */
	AUTO_BUF body = f->body;
	f->body = (struct buf)BUF_INIT;
	if (opcode == WS_TEXT && !is_utf8(&body, 0))
		return refuse(f, CODE_NOT_TEXT, "not UTF-8");
	f->message(f->arg, opcode == WS_BINARY, body.data ? body.data : "", body.size);
	return 0;
}

static int end_frame(struct ws_frames *f)
{
	f->in_payload = false;
	f->header_size = 0;
	unsigned opcode = f->header[0] & OPCODE;
	if (opcode & CONTROL)
		return take_control(f, opcode);
	return f->header[0] & FINAL ? take_message(f) : 0;
}

/* Its first two bytes tell the size of a header. */
static size_t header_wants(const struct ws_frames *f)
{
	if (f->header_size < 2)
		return 2;
	unsigned length = f->header[1] & ~(unsigned)MASKED;
	return 2 + (length == LENGTH_16 ? 2 : length == LENGTH_64 ? 8 : 0) + MASK_SIZE;
}

static uint64_t header_length(const struct ws_frames *f)
{
	unsigned length = f->header[1] & ~(unsigned)MASKED;
	if (length < LENGTH_16)
		return length;
	uint64_t v = 0;
	for (size_t i = 0; i < (length == LENGTH_16 ? 2 : 8); i++)
		v = v << 8 | f->header[2 + i];
	return v;
}

static const char *control_is_wrong(const struct ws_frames *f)
{
	unsigned opcode = f->header[0] & OPCODE;
	if (opcode > WS_PONG)
		return "no such frame";
	if (!(f->header[0] & FINAL))
		return "a control frame in pieces";
	return (f->header[1] & ~(unsigned)MASKED) > WS_CONTROL_MAX ? "a long control frame" : NULL;
}

/* What breaks the rules in the first two bytes, or NULL. */
static const char *start_is_wrong(const struct ws_frames *f)
{
	unsigned opcode = f->header[0] & OPCODE;
	if (f->header[0] & RESERVED)
		return "a reserved bit";
	if (!(f->header[1] & MASKED))
		return "no mask";
	if (opcode & CONTROL)
		return control_is_wrong(f);
	if (opcode > WS_BINARY)
		return "no such frame";
	if ((opcode == WS_CONTINUATION) != (f->opcode != WS_CONTINUATION))
		return opcode ? "a message within a message" : "nothing to continue";
	return NULL;
}

static int start_payload(struct ws_frames *f)
{
	uint64_t length = header_length(f);
	unsigned opcode = f->header[0] & OPCODE;
	if (length > f->message_max || (!(opcode & CONTROL) && length > f->message_max - f->body.size))
		return refuse(f, CODE_TOO_BIG, "too large");
	if (opcode == WS_TEXT || opcode == WS_BINARY)
		f->opcode = (uint8_t)opcode;
	f->in_payload = true;
	f->left = length;
	f->at = 0;
	return length ? 0 : end_frame(f);
}

/* Takes bytes of the header. How many in *used. */
static int take_header(struct ws_frames *f, const unsigned char *p, size_t n, size_t *used)
{
	*used = 0;
	while (*used < n) {
		f->header[f->header_size++] = p[(*used)++];
		if (f->header_size == 2) {
			const char *why = start_is_wrong(f);
			if (why)
				return refuse(f, CODE_PROTOCOL, why);
		}
		if (f->header_size == header_wants(f))
			return start_payload(f);
	}
	return 0;
}

static int take_payload(struct ws_frames *f, const unsigned char *p, size_t n, size_t *used)
{
	struct buf *to = f->header[0] & CONTROL ? &f->control : &f->body;
	const unsigned char *mask = f->header + f->header_size - MASK_SIZE;
	size_t part = n < f->left ? n : (size_t)f->left;
	char *out = buf_reserve(to, part);
	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < part; i++)
		out[i] = (char)(p[i] ^ mask[(f->at + i) % MASK_SIZE]);
	to->size += part;
	f->at += part;
	f->left -= part;
	*used = part;
	return f->left ? 0 : end_frame(f);
}

int ws_frames_take(struct ws_frames *f, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;
	while (n && !f->over) {
		size_t used = 0;
		int rc = f->in_payload ? take_payload(f, p, n, &used) : take_header(f, p, n, &used);
		if (rc)
			return rc;
		p += used;
		n -= used;
	}
	return 0;
}
