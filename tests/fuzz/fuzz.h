/*
 * What the libFuzzer targets share: text in memory of its own size, so that one byte too far is seen, and what must hold.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(what)                                                                                 \
	do {                                                                                           \
		if (!(what)) {                                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                     \
			abort();                                                                               \
		}                                                                                          \
	} while (0)

/* New: the bytes, with no byte behind them. */
static inline char *fuzz_exact(const void *p, size_t n)
{
	char *copy = malloc(n ? n : 1);
	MUST(copy);
	memcpy(copy, p, n);
	return copy;
}

/* New: the bytes and a NUL, as documents and lines come. */
static inline char *fuzz_text(const void *p, size_t n)
{
	char *copy = malloc(n + 1);
	MUST(copy);
	memcpy(copy, p, n);
	copy[n] = 0;
	return copy;
}

#endif
