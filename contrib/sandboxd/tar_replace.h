/*
 * What the two rooms of tar_replace (tar.h) show each other.
 */
#ifndef SANDBOXD_TAR_REPLACE_H
#define SANDBOXD_TAR_REPLACE_H

#include <stdbool.h>

#include "tar.h"

/* Is the name one of the list (NULL-terminated; NULL: an empty one)? */
bool replace_skips(char *const *skip, const char *name);
/*
 * Looks whether all that is in root, but for the names of skip, can be removed. 0, or a negative errno: -EBUSY something is
 * mounted in it, -EACCES a directory in it is another's. It has said where and why in result, or nothing.
 */
int replace_look(int root, char *const *skip, struct tar_result *result);

#endif
