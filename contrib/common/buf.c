/*
 * The growing buffer and the bounds-checked reader of buf.h. Owns no state of
 * its own; touches nothing but the memory it is given.
 */
#include "buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_release(struct buf *b)
{
	free(b->data);
	*b = (struct buf)BUF_INIT;
}

void buf_clear(struct buf *b)
{
	b->size = 0;
	b->failed = false;
	if (b->data)
		b->data[0] = '\0';
}

char *buf_steal(struct buf *b)
{
	if (!b->failed && !b->data)
		buf_str(b, "");
	if (b->failed) {
		buf_release(b);
		return NULL;
	}
	char *s = b->data;
	*b = (struct buf)BUF_INIT;
	return s;
}

int buf_error(const struct buf *b)
{
	return b->failed ? -ENOMEM : 0;
}

char *buf_reserve(struct buf *b, size_t n)
{
	if (b->failed)
		return NULL;
	/* One byte more than asked, for the NUL that always follows the content. */
	if (n >= SIZE_MAX / 2 || b->size >= SIZE_MAX / 2 - n) {
		b->failed = true;
		return NULL;
	}
	size_t need = b->size + n + 1;
	if (need > b->capacity) {
		size_t capacity = b->capacity ? b->capacity : 64;
		while (capacity < need)
			capacity += capacity / 2 + 16;
		char *data = realloc(b->data, capacity);
		if (!data) {
			b->failed = true;
			return NULL;
		}
		if (!b->data)
			data[0] = '\0';
		b->data = data;
		b->capacity = capacity;
	}
	return b->data + b->size;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	char *to = buf_reserve(b, n);
	if (!to)
		return;
	if (n)
		memcpy(to, p, n);
	b->size += n;
	b->data[b->size] = '\0';
}

void buf_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_char(struct buf *b, char c)
{
	buf_add(b, &c, 1);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	char *to = n < 0 ? NULL : buf_reserve(b, (size_t)n);
	if (!to) {
		b->failed = true;
	} else {
		vsnprintf(to, (size_t)n + 1, fmt, again);
		b->size += (size_t)n;
	}
	va_end(again);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(b, fmt, ap);
	va_end(ap);
}

void buf_consume(struct buf *b, size_t n)
{
	if (!n)
		return;
	memmove(b->data, b->data + n, b->size - n);
	b->size -= n;
	b->data[b->size] = '\0';
}

static void put_le(struct buf *b, uint64_t v, size_t n)
{
	unsigned char bytes[8];
	for (size_t i = 0; i < n; i++)
		bytes[i] = (unsigned char)(v >> (8 * i));
	buf_add(b, bytes, n);
}

void buf_u8(struct buf *b, uint8_t v)
{
	put_le(b, v, 1);
}

void buf_u16(struct buf *b, uint16_t v)
{
	put_le(b, v, 2);
}

void buf_u32(struct buf *b, uint32_t v)
{
	put_le(b, v, 4);
}

void buf_u64(struct buf *b, uint64_t v)
{
	put_le(b, v, 8);
}

void buf_bytes(struct buf *b, const void *p, size_t n)
{
	if (n > UINT32_MAX) {
		b->failed = true;
		return;
	}
	buf_u32(b, (uint32_t)n);
	buf_add(b, p, n);
}

void buf_patch_u32(struct buf *b, size_t at, uint32_t v)
{
	if (b->failed || b->size < 4 || at > b->size - 4)
		return;
	for (size_t i = 0; i < 4; i++)
		b->data[at + i] = (char)(unsigned char)(v >> (8 * i));
}

void buf_shell_quote(struct buf *b, const char *s)
{
	buf_char(b, '\'');
	for (;;) {
		size_t plain = strcspn(s, "'");
		buf_add(b, s, plain);
		s += plain;
		if (!*s)
			break;
		/* A quote cannot stand within quotes: close them, a quoted quote, open them again. */
		buf_str(b, "'\\''");
		s++;
	}
	buf_char(b, '\'');
}

void reader_init(struct reader *r, const void *p, size_t n)
{
	*r = (struct reader){.p = p, .left = n};
}

const void *reader_take(struct reader *r, size_t n)
{
	if (r->bad || n > r->left) {
		r->bad = true;
		return NULL;
	}
	const void *p = r->p;
	/* Empty views are not NULL: NULL says that the bytes were not there. */
	if (!p)
		return "";
	r->p += n;
	r->left -= n;
	return p;
}

static uint64_t get_le(struct reader *r, size_t n)
{
	const unsigned char *p = reader_take(r, n);
	uint64_t v = 0;
	if (p)
		for (size_t i = 0; i < n; i++)
			v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint8_t reader_u8(struct reader *r)
{
	return (uint8_t)get_le(r, 1);
}

uint16_t reader_u16(struct reader *r)
{
	return (uint16_t)get_le(r, 2);
}

uint32_t reader_u32(struct reader *r)
{
	return (uint32_t)get_le(r, 4);
}

uint64_t reader_u64(struct reader *r)
{
	return get_le(r, 8);
}

const void *reader_bytes(struct reader *r, size_t *n)
{
	size_t size = reader_u32(r);
	const void *p = reader_take(r, size);
	*n = p ? size : 0;
	return p;
}

char *reader_str(struct reader *r)
{
	size_t n;
	const char *p = reader_bytes(r, &n);
	if (!p)
		return NULL;
	char *s = memchr(p, '\0', n) ? NULL : malloc(n + 1);
	if (!s) {
		r->bad = true;
		return NULL;
	}
	memcpy(s, p, n);
	s[n] = '\0';
	return s;
}
