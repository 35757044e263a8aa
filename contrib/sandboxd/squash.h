/*
 * Archives in the form of the official API, squashfs, by the programs of squashfs-tools where the sandbox has them: its clients unpack
 * them with these themselves. Times are whole seconds there. Stateless.
 */
#ifndef SANDBOXD_SQUASH_H
#define SANDBOXD_SQUASH_H

#include <stdbool.h>

#include "server.h"
#include "tar.h"

/* Is an archive of this name to be squashfs, and can it be made here? */
bool squash_wanted(const char *archive);
bool squash_can_unpack(void);
/* Makes archive, which is not there, of what is in dir. 0, or a negative errno and perhaps a sentence in *why, which the caller frees. */
int squash_create(struct server *server, const char *dir, const char *archive,
	const struct tar_filter *filter, enum tar_compression compression, char **why);
/* The content of dir becomes that of archive, as by tar_replace. */
int squash_replace(
	struct server *server, const char *archive, const char *dir, struct tar_result *result);

#endif
