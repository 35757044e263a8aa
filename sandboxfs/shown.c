/* Text from outside as a terminal may see it: see shown.h. */
#include "shown.h"

/*
 * How many of the n bytes at p are one character of UTF-8 (RFC 3629: none that is longer than it must be, no surrogates);
 * 0: none is there.
 */
static size_t character(const unsigned char *p, size_t n)
{
	size_t size = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;

	if (size > n)
		return 0;
	for (size_t i = 1; i < size; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
		(*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return size;
}

/* A terminal obeys these as well when they come as UTF-8. */
static bool steers(const unsigned char *p, size_t size)
{
	if (size == 1)
		return *p < 0x20 || *p == 0x7f;
	return size == 2 && *p == 0xc2 && p[1] < 0xa0;
}

void shown_add(struct buf *out, const char *text, size_t n, enum shown_backslash backslash)
{
	const unsigned char *p = (const unsigned char *)text;
	const unsigned char *plain = p, *end = p + n;

	while (p < end) {
		size_t size = character(p, (size_t)(end - p));
		bool escape = size ? steers(p, size) : *p >= 0x80 && *p < 0xa0;

		if (!size)
			size = 1;
		if (*p == '\\' && backslash == SHOWN_ESCAPE)
			escape = true;
		if (escape) {
			buf_add(out, plain, (size_t)(p - plain));
			for (size_t i = 0; i < size; i++)
				buf_printf(out, "\\%03o", p[i]);
			plain = p + size;
		}
		p += size;
	}
	buf_add(out, plain, (size_t)(p - plain));
}

void shown_words(struct buf *out, const char *text, size_t n, size_t most)
{
	shown_add(out, text, n < most ? n : most, SHOWN_KEEP);
	if (n > most)
		buf_str(out, "...");
}
