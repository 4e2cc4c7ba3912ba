#!/bin/sh
# Prints a pkg-config file. usage: pkgconfig.sh PREFIX VERSION engine|router
prefix=$1 version=$2
cat <<END
prefix=$prefix
libdir=\${prefix}/lib
includedir=\${prefix}/include

Version: $version
END
if [ "$3" = engine ]; then
    cat <<'END'
Name: minim
Description: CPU inference engine for small language models
Cflags: -I${includedir}
Libs: -L${libdir} -lminim -lm -pthread
END
else
    cat <<'END'
Name: minim-router
Description: decides between a local language model and a remote one
Requires: minim libcurl jansson
Cflags: -I${includedir}
Libs: -L${libdir} -lminim_router
END
fi
