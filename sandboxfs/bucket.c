/*
 * The description of a bucket (bucket.h): its memory, and which directories exclude each other. No state, no locks.
 */
#include "bucket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void wipe(char **secret)
{
	if (*secret)
		explicit_bzero(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}

void bucket_release(struct bucket *b)
{
	free(b->name);
	free(b->bucket);
	free(b->dir);
	free(b->endpoint);
	free(b->prefix);
	for (char **o = b->options; o && *o; o++)
		free(*o);
	free(b->options);
	wipe(&b->key_id);
	wipe(&b->secret);
	wipe(&b->token);
	*b = (struct bucket){0};
}

static char *copy(const char *s, bool *failed)
{
	char *new = s ? strdup(s) : NULL;
	*failed = *failed || (s && !new);
	return new;
}

int bucket_copy(struct bucket *to, const struct bucket *from)
{
	bool failed = false;
	size_t n = 0;
	*to = (struct bucket){.name = copy(from->name, &failed),
		.bucket = copy(from->bucket, &failed),
		.dir = copy(from->dir, &failed),
		.endpoint = copy(from->endpoint, &failed),
		.prefix = copy(from->prefix, &failed),
		.path_style = from->path_style,
		.read_only = from->read_only};
	while (from->options && from->options[n])
		n++;
	to->options = calloc(n + 1, sizeof *to->options);
	failed = failed || !to->options;
	for (size_t i = 0; i < n && !failed; i++)
		to->options[i] = copy(from->options[i], &failed);
	if (failed)
		bucket_release(to);
	return failed ? -ENOMEM : 0;
}

bool bucket_dirs_meet(const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b), n = na < nb ? na : nb;
	const char *longer = na < nb ? b : a;
	return memcmp(a, b, n) == 0 && (na == nb || longer[n] == '/');
}
