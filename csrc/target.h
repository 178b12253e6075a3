/* What stands between APH_TARGET("extensions") and APH_TARGET_END is compiled for a CPU that has them. Clang does not know
 * GCC's pragma. */
#ifndef APH_TARGET_H
#define APH_TARGET_H

#define APH_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define APH_TARGET(extensions)                                                                                         \
    APH_PRAGMA(clang attribute push(__attribute__((target(extensions))), apply_to = function))
#define APH_TARGET_END APH_PRAGMA(clang attribute pop)
#define APH_WIDE_VECTORS "" /* explicit vectors are as wide as they say */
#else
#define APH_TARGET(extensions) APH_PRAGMA(GCC push_options) APH_PRAGMA(GCC target(extensions))
#define APH_TARGET_END APH_PRAGMA(GCC pop_options)
#define APH_WIDE_VECTORS ",prefer-vector-width=512"
#endif

#endif
